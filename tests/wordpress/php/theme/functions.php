<?php
add_action(
	'widgets_init',
	static function () {
		register_sidebar(
			array(
				'id'            => 'rail',
				'name'          => 'Rail',
				'before_widget' => '<section class="widget">',
				'after_widget'  => '</section>',
			)
		);
	}
);
add_theme_support( 'title-tag' );
if ( get_option( 'courier_knows_readers' ) ) {
	add_filter(
		'adserver_about',
		static function ( $facts ) {
			return array( 'reader' => $_SERVER['HTTP_X_READER'] ?? '' ) + $facts;
		}
	);
	add_filter( 'adserver_consent', '__return_true' );
}
if ( get_option( 'courier_is_strict' ) ) {
	add_action(
		'send_headers',
		static function () {
			header( 'Cache-Control: no-store' );
		}
	);
}
add_action(
	'wp_ajax_nopriv_courier_more',
	static function () {
		foreach ( explode( ',', $_GET['slots'] ) as $slot ) {
			echo apply_filters( 'the_content', "[the_ad id=\"$slot\"]" ), '|';
		}
		exit;
	}
);
