<?php
/**
 * Settings › adserver.
 */

namespace Adserver;

final class Settings_Page {
	const SLUG   = 'adserver';
	const ACTION = 'adserver_test';

	public static function add(): void {
		add_action( 'admin_init', array( self::class, 'register' ) );
		add_action( 'admin_menu', array( self::class, 'add_to_menu' ) );
		add_action( 'admin_post_' . self::ACTION, array( self::class, 'test' ) );
		add_filter( 'plugin_action_links_' . plugin_basename( FILE ), array( self::class, 'add_link' ) );
	}

	public static function register(): void {
		register_setting(
			self::SLUG,
			Settings::OPTION,
			array(
				'type'              => 'array',
				'sanitize_callback' => array( self::class, 'check' ),
				'show_in_rest'      => false,
			)
		);
	}

	/** What was typed, as it is kept; where it cannot be meant, what was there before, and a sentence. */
	public static function check( $typed ): array {
		$kept  = Settings::all();
		$typed = is_array( $typed ) ? $typed : array();
		foreach ( array( 'url', 'public_url' ) as $name ) {
			$text = is_string( $typed[ $name ] ?? null ) ? trim( $typed[ $name ] ) : '';
			$read = '' === $text ? '' : Settings::read_address( $text );
			if ( null === $read ) {
				/* translators: %s: what was typed */
				$said = __( '"%s" is not the address of a service: expected such as http://127.0.0.1:8000, without a login, a question mark or a blank. The address before was kept.', 'adserver' );
				add_settings_error( Settings::OPTION, "adserver_$name", esc_html( sprintf( $said, substr( $text, 0, 200 ) ) ) );
			} else {
				$kept[ $name ] = $read;
			}
		}
		if ( in_array( $typed['mode'] ?? null, Settings::MODES, true ) ) {
			$kept['mode'] = $typed['mode'];
		}
		if ( 'placeholder' === $kept['mode'] && '' === $kept['public_url'] ) {
			add_settings_error( Settings::OPTION, 'adserver_mode', esc_html__( 'Placeholders are filled by readers\' browsers: write the public address, too. Until then pages carry the ads themselves.', 'adserver' ) );
		}
		return $kept;
	}

	public static function add_to_menu(): void {
		add_options_page( 'adserver', 'adserver', 'manage_options', self::SLUG, array( self::class, 'show' ) );
	}

	public static function add_link( $links ) {
		$link = sprintf( '<a href="%s">%s</a>', esc_url( self::address() ), esc_html__( 'Settings', 'adserver' ) );
		return array_merge( array( $link ), (array) $links );
	}

	public static function test(): void {
		if ( ! current_user_can( 'manage_options' ) ) {
			wp_die( esc_html__( 'Sorry, you are not allowed to do this.', 'adserver' ), '', array( 'response' => 403 ) );
		}
		check_admin_referer( self::ACTION );
		foreach ( Connection_Test::run() as $number => list( $kind, $said ) ) {
			add_settings_error( Settings::OPTION, "adserver_test_$number", esc_html( $said ), $kind );
		}
		set_transient( 'settings_errors', get_settings_errors(), 30 );
		// Not the safe one, which knows the site's host only: the desk may have another.
		wp_redirect( add_query_arg( 'settings-updated', 'true', self::address() ) ); // phpcs:ignore WordPress.Security.SafeRedirect
		exit;
	}

	private static function address(): string {
		return admin_url( 'options-general.php?page=' . self::SLUG );
	}

	public static function show(): void {
		if ( ! current_user_can( 'manage_options' ) ) {
			return;
		}
		$set    = Settings::all();
		$outage = Outage::now();
		$modes  = array(
			'auto'        => __( 'Placeholders where a page cache is on (WP_CACHE), else snippets', 'adserver' ),
			'snippet'     => __( 'Snippets: each page is made with its ads; no cache may keep it', 'adserver' ),
			'placeholder' => __( 'Placeholders: pages may be kept, and readers\' browsers fill in the ads', 'adserver' ),
		);
		echo '<div class="wrap"><h1>adserver</h1>';
		if ( $outage ) {
			/* translators: 1: how long, such as "5 mins", 2: why */
			$said = __( 'The service has been away for %1$s: %2$s. Pages are shown with their last good ads, or without.', 'adserver' );
			printf( '<div class="notice notice-warning"><p>%s</p></div>', esc_html( sprintf( $said, human_time_diff( (int) $outage['since'] ), $outage['why'] ) ) );
		}
		echo '<form method="post" action="options.php">';
		settings_fields( self::SLUG );
		echo '<table class="form-table" role="presentation">';
		self::row( 'url', __( 'Address for this server', 'adserver' ), $set['url'], 'http://127.0.0.1:8000', __( 'Where WordPress asks for ads.', 'adserver' ) );
		self::row( 'public_url', __( 'Address for readers', 'adserver' ), $set['public_url'], 'https://ads.example.com', __( 'Where readers\' browsers find the script that fills placeholders and measures views.', 'adserver' ) );
		printf( '<tr><th scope="row">%s</th><td><fieldset><legend class="screen-reader-text">%s</legend>', esc_html__( 'Pages carry', 'adserver' ), esc_html__( 'Pages carry', 'adserver' ) );
		foreach ( $modes as $mode => $label ) {
			printf( '<label><input type="radio" name="adserver[mode]" value="%s"%s> %s</label><br>', esc_attr( $mode ), checked( $mode, $set['mode'], false ), esc_html( $label ) );
		}
		echo '</fieldset></td></tr></table>';
		submit_button();
		printf( '</form><h2>%s</h2><form method="post" action="%s">', esc_html__( 'Connection', 'adserver' ), esc_url( admin_url( 'admin-post.php' ) ) );
		printf( '<p>%s</p><input type="hidden" name="action" value="%s">', esc_html__( 'Asks the service as pages do, with the settings as they are saved.', 'adserver' ), esc_attr( self::ACTION ) );
		wp_nonce_field( self::ACTION );
		submit_button( __( 'Test the connection', 'adserver' ), 'secondary', 'test', false );
		echo '</form></div>';
	}

	private static function row( string $name, string $label, string $value, string $example, string $more ): void {
		printf(
			'<tr><th scope="row"><label for="adserver-%1$s">%2$s</label></th><td>'
			. '<input type="url" class="regular-text code" id="adserver-%1$s" name="adserver[%1$s]" value="%3$s" placeholder="%4$s" aria-describedby="adserver-%1$s-more">'
			. '<p class="description" id="adserver-%1$s-more">%5$s</p></td></tr>',
			esc_attr( $name ),
			esc_html( $label ),
			esc_attr( $value ),
			esc_attr( $example ),
			esc_html( $more )
		);
	}
}
