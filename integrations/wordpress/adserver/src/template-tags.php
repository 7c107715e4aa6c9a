<?php
/**
 * For themes: `if ( function_exists( 'adserver_ad' ) ) { adserver_ad( 889990 ); }`
 */

if ( ! function_exists( 'adserver_ad' ) ) {
	/** @param int|string $id Of an ad's slot. */
	function adserver_ad( $id ): void {
		echo Adserver\Marks::mark( 'the_ad', (string) $id ); // phpcs:ignore WordPress.Security.EscapeOutput
	}

	/** @param int|string $id Of a group. */
	function adserver_ad_group( $id ): void {
		echo Adserver\Marks::mark( 'the_ad_group', (string) $id ); // phpcs:ignore WordPress.Security.EscapeOutput
	}

	/** @param int|string $id Of a placement. */
	function adserver_ad_placement( $id ): void {
		echo Adserver\Marks::mark( 'the_ad_placement', (string) $id ); // phpcs:ignore WordPress.Security.EscapeOutput
	}
}
