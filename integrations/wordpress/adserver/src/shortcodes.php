<?php
/**
 * The three shortcodes, also where Advanced Ads or another plugin has registered them.
 */

namespace Adserver;

final class Shortcodes {
	public static function take_over(): void {
		add_action( 'init', array( self::class, 'register' ), PHP_INT_MAX );
		// Whoever registers them later still: WordPress asks here before it calls anybody.
		add_filter( 'pre_do_shortcode_tag', array( self::class, 'answer_first' ), PHP_INT_MAX, 4 );
	}

	public static function register(): void {
		foreach ( Marks::NAMES as $name ) {
			add_shortcode( $name, array( self::class, 'answer' ) );
		}
	}

	/** A mark, or nothing. In feeds nothing: a feed reader is no page view. */
	public static function answer( $attributes, $content = '', $name = '' ): string {
		if ( is_feed() ) {
			return '';
		}
		$id = is_array( $attributes ) && isset( $attributes['id'] ) ? (string) $attributes['id'] : '';
		return Marks::mark( (string) $name, $id );
	}

	public static function answer_first( $answer, $name, $attributes, $match ) {
		if ( ! in_array( $name, Marks::NAMES, true ) ) {
			return $answer;
		}
		// What is returned here stands for the whole match, the brackets of a half escaped shortcode among it.
		return $match[1] . self::answer( $attributes, '', $name ) . ( $match[6] ?? '' );
	}
}
