<?php
/**
 * The block `adserver/ad`. It is rendered here, so that a post keeps no markup of an ad.
 */

namespace Adserver;

final class Block {
	public static function add(): void {
		add_action( 'init', array( self::class, 'register' ) );
	}

	public static function register(): void {
		register_block_type( dirname( FILE ) . '/block', array( 'render_callback' => array( self::class, 'render' ) ) );
	}

	public static function render( $attributes ): string {
		$kind = is_string( $attributes['kind'] ?? null ) ? $attributes['kind'] : 'the_ad';
		$id   = $attributes['id'] ?? '';
		$mark = is_feed() || ! is_scalar( $id ) ? '' : Marks::mark( $kind, (string) $id );
		return '' === $mark ? '' : '<div ' . get_block_wrapper_attributes() . ">$mark</div>";
	}
}
