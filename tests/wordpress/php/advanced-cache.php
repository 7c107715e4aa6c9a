<?php
/**
 * A page cache as WordPress wants one: the drop-in that is loaded before everything else. It keeps whole pages, unless
 * somebody says DONOTCACHEPAGE.
 */

$cache_file = WP_CONTENT_DIR . '/pages-' . md5( $_SERVER['REQUEST_URI'] ?? '' );
if ( PHP_SAPI !== 'cli' && 'GET' === $_SERVER['REQUEST_METHOD'] && 0 === strpos( $_SERVER['REQUEST_URI'], '/20' ) ) { // a post's
	if ( file_exists( $cache_file ) ) {
		header( 'X-Page-Cache: hit' );
		readfile( $cache_file );
		exit;
	}
	ob_start(
		static function ( $page ) use ( $cache_file ) {
			if ( ! defined( 'DONOTCACHEPAGE' ) ) {
				file_put_contents( $cache_file, $page );
			}
			return $page;
		}
	);
}
