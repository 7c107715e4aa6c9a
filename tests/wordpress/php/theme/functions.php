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
