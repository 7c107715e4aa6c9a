<?php
/**
 * The script that fills placeholders and sees which ads are viewable, and its stylesheet, by the service's public address.
 */

namespace Adserver;

final class Loader {
	const HANDLE    = 'adserver-loader';
	const TRANSIENT = 'adserver_loader';
	const EVENT     = 'adserver_look_for_loader';

	private const PATIENCE_S = 2;

	public static function add(): void {
		add_action( 'wp_enqueue_scripts', array( self::class, 'enqueue' ) );
		add_filter( 'script_loader_tag', array( self::class, 'say' ), 10, 2 );
		add_action( self::EVENT, array( self::class, 'look' ) );
		add_action( 'add_option_' . Settings::OPTION, array( self::class, 'start' ) );
		add_action( 'update_option_' . Settings::OPTION, array( self::class, 'start' ) );
		register_activation_hook( FILE, array( self::class, 'start' ) );
		register_deactivation_hook( FILE, array( self::class, 'stop' ) );
	}

	public static function enqueue(): void {
		$url = Settings::public_url();
		if ( '' === $url || is_feed() ) {
			return;
		}
		$names = get_transient( self::TRANSIENT );
		$names = ( is_array( $names ) ? $names : array() ) + array(
			'js'  => '/loader.js',
			'css' => '/loader.css',
		);
		// The version is in the name.
		wp_enqueue_style( self::HANDLE, $url . $names['css'], array(), null ); // phpcs:ignore
		wp_enqueue_script( self::HANDLE, $url . $names['js'], array(), null, false ); // phpcs:ignore
	}

	/** `defer`, and what the page says of itself. */
	public static function say( $tag, $handle ) {
		if ( self::HANDLE !== $handle || ! is_string( $tag ) ) {
			return $tag;
		}
		$said    = ' defer';
		$facts   = About::page();
		$consent = About::consent();
		if ( Settings::uses_placeholders() ) { // Or else all readers of a kept page would be taken for its first.
			unset( $facts['reader'] );
			$consent = null;
		}
		foreach ( About::attributes( $facts, $consent ) as $name => $value ) {
			$said .= " $name=\"" . esc_attr( $value ) . '"';
		}
		return str_replace( ' src=', "$said src=", $tag );
	}

	/** The settings are new. */
	public static function start(): void {
		self::stop();
		Outage::over();
		if ( '' !== Settings::public_url() && '' !== Settings::url() ) {
			self::look();
			wp_schedule_event( time() + HOUR_IN_SECONDS, 'hourly', self::EVENT );
		}
	}

	public static function stop(): void {
		wp_clear_scheduled_hook( self::EVENT );
		delete_transient( self::TRANSIENT );
		delete_transient( Outage::TRANSIENT );
	}

	/** Asks for the names that browsers may keep for ever. A name that is out of date still works, only for shorter. */
	public static function look(): void {
		$names = array();
		foreach ( array( 'js', 'css' ) as $kind ) {
			$asked  = array(
				'timeout'     => self::PATIENCE_S,
				'redirection' => 0,
			);
			$answer = wp_remote_head( Settings::url() . "/loader.$kind", $asked );
			$name   = is_wp_error( $answer ) ? '' : wp_remote_retrieve_header( $answer, 'content-location' );
			if ( is_string( $name ) && 1 === preg_match( "~^/loader\.$kind\?v=[0-9a-f]{1,64}$~D", $name ) ) {
				$names[ $kind ] = $name;
			}
		}
		if ( $names ) {
			set_transient( self::TRANSIENT, $names );
		}
	}
}
