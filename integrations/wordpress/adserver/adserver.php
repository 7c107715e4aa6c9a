<?php
/**
 * Plugin Name:       adserver
 * Description:       Shows the ads of your own adserver: shortcodes, a block and a widget, all ads of a page by one call.
 * Version:           1.0.0
 * Requires at least: 6.1
 * Requires PHP:      7.4
 * License:           GPL-2.0-or-later OR Apache-2.0
 * License URI:       https://www.gnu.org/licenses/old-licenses/gpl-2.0.html
 * Text Domain:       adserver
 *
 * Rules of the whole plugin: one call for a page; a page waits for it 0.3 s at most and, after a failure, not at all for
 * 30 s; no shortcode is ever left for a reader to see; nothing is stored about readers, on their devices or here.
 */

namespace Adserver;

if ( ! defined( 'ABSPATH' ) ) {
	exit;
}

const VERSION = '1.0.0';
const FILE    = __FILE__;

require __DIR__ . '/src/settings.php';
require __DIR__ . '/src/marks.php';
require __DIR__ . '/src/about.php';
require __DIR__ . '/src/outage.php';
require __DIR__ . '/src/line.php';
require __DIR__ . '/src/page.php';
require __DIR__ . '/src/shortcodes.php';
require __DIR__ . '/src/block.php';
require __DIR__ . '/src/widget.php';
require __DIR__ . '/src/loader.php';
require __DIR__ . '/src/template-tags.php';

Page::watch();
Shortcodes::take_over();
Block::add();
Widget::add();
Loader::add();

if ( is_admin() ) {
	require __DIR__ . '/src/connection-test.php';
	require __DIR__ . '/src/settings-page.php';
	Settings_Page::add();
}

if ( defined( 'WP_CLI' ) && \WP_CLI ) {
	require __DIR__ . '/src/advanced-ads.php';
	require __DIR__ . '/src/command.php';
	\WP_CLI::add_command( 'adserver', Command::class );
}
