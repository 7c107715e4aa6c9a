<?php
/**
 * Leaves nothing: no option, no transient, no widget, no event.
 */

namespace Adserver;

if ( ! defined( 'WP_UNINSTALL_PLUGIN' ) ) {
	exit;
}

function clean_site(): void {
	global $wpdb;
	delete_option( 'adserver' );
	delete_option( 'widget_adserver_ad' );
	delete_transient( 'adserver_outage' );
	delete_transient( 'adserver_loader' );
	wp_clear_scheduled_hook( 'adserver_look_for_loader' );
	$like = $wpdb->esc_like( '_transient_adserver_' ) . '%';
	$old  = $wpdb->esc_like( '_transient_timeout_adserver_' ) . '%';
	// phpcs:ignore WordPress.DB.DirectDatabaseQuery
	$names = $wpdb->get_col( $wpdb->prepare( "SELECT option_name FROM $wpdb->options WHERE option_name LIKE %s OR option_name LIKE %s", $like, $old ) );
	array_map( 'delete_option', $names );

	$sidebars = get_option( 'sidebars_widgets' );
	if ( ! is_array( $sidebars ) ) {
		return;
	}
	$left = array();
	foreach ( $sidebars as $name => $widgets ) {
		$left[ $name ] = $widgets;
		if ( is_array( $widgets ) && preg_grep( '~^adserver_ad-~', $widgets ) ) {
			$left[ $name ] = array_values( preg_grep( '~^adserver_ad-~', $widgets, PREG_GREP_INVERT ) );
		}
	}
	if ( $left !== $sidebars ) {
		update_option( 'sidebars_widgets', $left );
	}
}

if ( is_multisite() ) {
	foreach ( get_sites( array( 'fields' => 'ids', 'number' => 0 ) ) as $adserver_site ) {
		switch_to_blog( $adserver_site );
		clean_site();
		restore_current_blog();
	}
} else {
	clean_site();
}
