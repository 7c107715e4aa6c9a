<?php
/**
 * Whether pages will have ads: asks the service as pages do, and says in words what is wrong and what to do about it.
 */

namespace Adserver;

final class Connection_Test {
	private const PATIENCE_S = 3.0;

	/**
	 * @return list<array{string, string}> Findings, each a kind (`error`, `warning`, `success`) and a sentence.
	 */
	public static function run(): array {
		$url = Settings::url();
		if ( '' === $url ) {
			return array( array( 'error', __( 'No address of the service is set: write it above, such as http://127.0.0.1:8000, and save.', 'adserver' ) ) );
		}
		$began  = microtime( true );
		$answer = Line::post( "$url/render?repair=0", '[the_ad id="1"]', false, self::PATIENCE_S );
		$took   = microtime( true ) - $began;
		$wrong  = self::what_is_wrong( $url, $answer );
		if ( '' !== $wrong ) {
			return array( array( 'error', $wrong ) );
		}
		Outage::over();
		$found = array();
		if ( $took > Settings::BUDGET_S ) {
			/* translators: 1: the service's address, 2: seconds, 3: seconds */
			$said    = __( '%1$s answered after %2$.2f s, and pages wait for %3$.1f s only: they would be shown without ads. Is it near this server, and is its machine busy?', 'adserver' );
			$found[] = array( 'warning', sprintf( $said, $url, $took, Settings::BUDGET_S ) );
		} else {
			/* translators: 1: the service's address, 2: seconds */
			$found[] = array( 'success', sprintf( __( '%1$s answers as adserver does, after %2$.3f s.', 'adserver' ), $url, $took ) );
		}
		if ( ! function_exists( 'curl_init' ) ) {
			$found[] = array( 'warning', __( 'PHP\'s cURL extension is missing. Without it a service that hangs can hold a page up for longer than 0.3 s: install it (Debian: apt install php-curl).', 'adserver' ) );
		}
		return array_merge( $found, self::test_public() );
	}

	/** @param array|\WP_Error $answer */
	private static function what_is_wrong( string $url, $answer ): string {
		if ( is_wp_error( $answer ) ) {
			return self::why_not_reached( $url, $answer );
		}
		$status = (int) wp_remote_retrieve_response_code( $answer );
		if ( $status >= 300 && $status < 400 ) {
			/* translators: 1: the service's address, 2: an address */
			return sprintf( __( '%1$s sends elsewhere, to %2$s. Write the address at which adserver itself answers.', 'adserver' ), $url, self::shown( wp_remote_retrieve_header( $answer, 'location' ) ) );
		}
		if ( 401 === $status || 403 === $status ) {
			/* translators: 1: the service's address, 2: an HTTP status */
			return sprintf( __( '%1$s refuses this server (status %2$d): something before adserver wants a login or does not know this server. Let its calls to /render pass.', 'adserver' ), $url, $status );
		}
		if ( $status >= 500 ) {
			/* translators: 1: the service's address, 2: an HTTP status */
			return sprintf( __( '%1$s fails (status %2$d): adserver, or a proxy before it, is in trouble. Its /readyz and its log say more.', 'adserver' ), $url, $status );
		}
		try {
			Line::read( $answer );
		} catch ( Bad_Answer $error ) {
			/* translators: 1: the service's address, 2: an HTTP status */
			return sprintf( __( 'Something answers at %1$s (status %2$d), but it is not adserver. Are host, port and path right?', 'adserver' ), $url, $status );
		}
		return '';
	}

	private static function why_not_reached( string $url, \WP_Error $error ): string {
		$said = $error->get_error_message();
		$host = (string) wp_parse_url( $url, PHP_URL_HOST );
		if ( 'http_request_not_executed' === $error->get_error_code() ) {
			/* translators: %s: a host */
			return sprintf( __( 'WordPress is set not to call other servers. Add %s to WP_ACCESSIBLE_HOSTS in wp-config.php.', 'adserver' ), $host );
		}
		if ( preg_match( '~could not resolve|getaddrinfo|name or service not known~i', $said ) ) {
			/* translators: %s: a host */
			return sprintf( __( 'No machine is called %s. Is it written right, and can this server look it up?', 'adserver' ), $host );
		}
		if ( preg_match( '~certificate|SSL|TLS|crypto~i', $said ) ) {
			/* translators: 1: the service's address, 2: what PHP says */
			return sprintf( __( '%1$s cannot be trusted as https: %2$s. Does it speak https at this port, and is its certificate known here?', 'adserver' ), $url, self::shown( $said ) );
		}
		if ( preg_match( '~timed out|timeout~i', $said ) ) {
			/* translators: 1: the service's address, 2: seconds */
			return sprintf( __( '%1$s did not answer within %2$d s: it hangs, or something drops the call on its way.', 'adserver' ), $url, (int) self::PATIENCE_S );
		}
		if ( preg_match( '~refused|failed to connect|couldn.t connect~i', $said ) ) {
			/* translators: %s: the service's address */
			return sprintf( __( 'Nothing listens at %s. Is adserver running, and is this its port?', 'adserver' ), $url );
		}
		/* translators: 1: the service's address, 2: what PHP says */
		return sprintf( __( '%1$s could not be asked: %2$s.', 'adserver' ), $url, self::shown( rtrim( $said, '.' ) ) );
	}

	/** @return list<array{string, string}> What readers' browsers need, as far as it can be seen from this server. */
	private static function test_public(): array {
		$url  = Settings::public_url();
		$mode = Settings::all()['mode'];
		if ( '' === $url ) {
			$kept = 'snippet' !== $mode && defined( 'WP_CACHE' ) && \WP_CACHE;
			return array(
				$kept
				? array( 'warning', __( 'A page cache is on, and no public address is set: the cache may keep no page that has ads, because these count for one reader only. Write the address by which readers\' browsers reach adserver.', 'adserver' ) )
				: array( 'warning', __( 'No public address is set, so that nobody measures which ads were viewable.', 'adserver' ) ),
			);
		}
		if ( 0 === strpos( home_url(), 'https:' ) && 0 === strpos( $url, 'http:' ) ) {
			return array( array( 'error', __( 'Readers\' browsers will not load http from your https pages: the public address must begin with https.', 'adserver' ) ) );
		}
		$home   = wp_parse_url( home_url() );
		$origin = "{$home['scheme']}://{$home['host']}" . ( isset( $home['port'] ) ? ":{$home['port']}" : '' );
		$asked  = array(
			'timeout'     => (int) self::PATIENCE_S,
			'redirection' => 0,
		);
		$loader = wp_remote_get( "$url/loader.js", $asked );
		if ( is_wp_error( $loader ) || 200 !== (int) wp_remote_retrieve_response_code( $loader ) || '' === wp_remote_retrieve_header( $loader, 'content-location' ) ) {
			/* translators: %s: an address */
			return array( array( 'warning', sprintf( __( 'From this server there is no adserver at %s/loader.js. Open it in a browser outside: unless a script is shown, readers will see no ads.', 'adserver' ), $url ) ) );
		}
		if ( 0 === strpos( "$url/", "$origin/" ) ) {
			return array();
		}
		$asked['headers'] = array( 'Origin' => $origin );
		$answer           = wp_remote_get( "$url/ads?format=placeholder&id=1", $asked );
		if ( ! is_wp_error( $answer ) && wp_remote_retrieve_header( $answer, 'access-control-allow-origin' ) !== $origin ) {
			/* translators: %s: an origin */
			return array( array( 'error', sprintf( __( 'adserver does not let pages of %1$s read its answers: start it with ADSERVER_ALLOWED_ORIGINS="%1$s".', 'adserver' ), $origin ) ) );
		}
		return array();
	}

	private static function shown( $text ): string {
		return substr( is_string( $text ) ? (string) preg_replace( '~[\x00-\x1f\x7f]+~', ' ', $text ) : '', 0, 200 );
	}
}
