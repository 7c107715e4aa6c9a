<?php
/**
 * Plugin Name: Advanced Ads stand-in
 * Description: Registers the three shortcodes as that plugin does, and once more as late as one can.
 */

foreach ( array( 'init', 'wp', 'template_redirect' ) as $moment ) {
	add_action(
		$moment,
		static function () {
			foreach ( array( 'the_ad', 'the_ad_group', 'the_ad_placement' ) as $name ) {
				add_shortcode(
					$name,
					static function () {
						return 'an ad of the other plugin';
					}
				);
			}
		},
		PHP_INT_MAX
	);
}
