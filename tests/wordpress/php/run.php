<?php
/**
 * Runs the code on standard input inside the test's WordPress and prints what it returns, as JSON.
 */

$_SERVER['HTTP_HOST']      = getenv( 'SITE_HOST' );
$_SERVER['REQUEST_METHOD'] = 'GET';
$_SERVER['REQUEST_URI']    = '/';
if ( getenv( 'SITE_DEFINES' ) ) {
	foreach ( json_decode( getenv( 'SITE_DEFINES' ), true ) as $site_name => $site_value ) {
		define( $site_name, $site_value );
	}
}
if ( getenv( 'SITE_COMMANDS' ) ) {
	require __DIR__ . '/wp-cli.php';
}
$site_code = stream_get_contents( STDIN );
ob_start();
require getenv( 'SITE_HOME' ) . '/wp-load.php';
$site_result = eval( $site_code );
while ( ob_get_level() ) {
	ob_end_clean();
}
echo "\n==result==\n" . json_encode( $site_result, JSON_PARTIAL_OUTPUT_ON_ERROR | JSON_INVALID_UTF8_SUBSTITUTE );
