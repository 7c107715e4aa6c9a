<!doctype html>
<html <?php language_attributes(); ?>>
<head>
<meta charset="utf-8">
<link rel="icon" href="data:,">
<?php wp_head(); ?>
</head>
<body>
<?php if ( function_exists( 'adserver_ad_placement' ) && get_option( 'courier_tag' ) ) { adserver_ad_placement( get_option( 'courier_tag' ) ); } ?>
<main>
<?php
while ( have_posts() ) {
	the_post();
	if ( get_option( 'courier_flushes' ) ) {
		ob_flush();
		flush();
	}
	the_content();
}
?>
</main>
<aside id="rail"><?php dynamic_sidebar( 'rail' ); ?></aside>
<?php wp_footer(); ?>
</body>
</html>
