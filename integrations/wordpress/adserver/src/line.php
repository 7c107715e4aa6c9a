<?php
/**
 * The line to the service: one call for a page, within its budget, and none while the service is away.
 */

namespace Adserver;

final class Line {
	/** Whom an answer is for: this view alone, any reader while the service is away, or everybody as long as it lasts. */
	const ONCE    = 'once';
	const OUTAGES = 'outages';
	const ALL     = 'all';

	private const MOST_BYTES = 8388608;

	/**
	 * The HTML for each of *asks*, or null where there is none to be had. Waits *budget_s* seconds at most.
	 *
	 * @param list<array{string, string}> $asks A shortcode's name and its id each.
	 * @param string                      $query Of the call, with its question mark.
	 * @param string                      $for ONCE, OUTAGES or ALL.
	 * @return list<string>|null
	 */
	public static function ask( array $asks, string $query, bool $privacy, string $for, float $budget_s ): ?array {
		$url = Settings::url();
		if ( '' === $url ) {
			return null;
		}
		$question = "$url$query " . ( $privacy ? 'gpc ' : '' ) . wp_json_encode( $asks );
		$kept     = self::ALL === $for ? Outage::last_good( $question ) : null;
		if ( null !== $kept ) {
			return $kept;
		}
		if ( $budget_s <= 0 || ! Outage::may_call() ) {
			return self::ONCE === $for ? null : Outage::last_good( $question );
		}
		$separator = "\n" . bin2hex( random_bytes( 12 ) ) . "\n";
		$codes     = array();
		foreach ( $asks as list( $name, $id ) ) {
			$codes[] = "[$name id=\"$id\"]";
		}
		$answer = self::post( "$url/render$query", implode( $separator, $codes ), $privacy, $budget_s );
		try {
			$answers = explode( $separator, self::read( $answer ) );
			if ( count( $answers ) !== count( $asks ) ) {
				throw new Bad_Answer( __( 'its answer is not adserver\'s; is this the right address?', 'adserver' ) );
			}
		} catch ( Bad_Answer $error ) {
			Outage::failed( "$url: {$error->getMessage()}" );
			return self::ONCE === $for ? null : Outage::last_good( $question );
		}
		Outage::answered();
		if ( self::ONCE !== $for ) {
			Outage::keep( $question, $answers, self::age( $answer ) );
		}
		return $answers;
	}

	/**
	 * An article to be answered, as WordPress's HTTP functions give it.
	 *
	 * @return array|\WP_Error
	 */
	public static function post( string $address, string $article, bool $privacy, float $budget_s ) {
		$headers = array(
			'Content-Type'    => 'text/html; charset=utf-8',
			'Accept'          => 'text/html',
			'Accept-Encoding' => 'identity',
		);
		if ( $privacy ) {
			$headers['Sec-GPC'] = '1';
		}
		return self::within(
			$budget_s,
			function () use ( $address, $article, $headers, $budget_s ) {
				$asked = array(
					'timeout'             => $budget_s,
					'redirection'         => 0,
					'user-agent'          => 'adserver-wordpress/' . VERSION,
					'headers'             => $headers,
					'body'                => $article,
					'decompress'          => false,
					'limit_response_size' => self::MOST_BYTES,
				);
				return wp_remote_post( $address, $asked );
			}
		);
	}

	/**
	 * What *call* returns, with its whole time limited to *budget_s* seconds.
	 *
	 * WordPress rounds a limit below a second up to one, for the sake of old builds of cURL; and without cURL its limit
	 * is that of each single read.
	 */
	private static function within( float $budget_s, callable $call ) {
		$until = microtime( true ) + $budget_s;
		$curl  = static function ( $handle ) use ( $budget_s ): void {
			$ms = max( 1, (int) ( $budget_s * 1000 ) );
			// phpcs:disable WordPress.WP.AlternativeFunctions
			curl_setopt( $handle, CURLOPT_NOSIGNAL, true );
			curl_setopt( $handle, CURLOPT_TIMEOUT_MS, $ms );
			curl_setopt( $handle, CURLOPT_CONNECTTIMEOUT_MS, $ms );
			// phpcs:enable
		};
		$progress = static function () use ( $until ): void {
			if ( microtime( true ) > $until ) {
				$class = class_exists( '\WpOrg\Requests\Exception' ) ? '\WpOrg\Requests\Exception' : '\Requests_Exception';
				throw new $class( 'timed out', 'timeout' );
			}
		};
		add_action( 'http_api_curl', $curl, PHP_INT_MAX );
		add_action( 'requests-request.progress', $progress );
		try {
			return $call();
		} finally {
			remove_action( 'http_api_curl', $curl, PHP_INT_MAX );
			remove_action( 'requests-request.progress', $progress );
		}
	}

	/**
	 * @param array|\WP_Error $answer
	 * @throws Bad_Answer Where it is not what adserver says to an article.
	 */
	public static function read( $answer ): string {
		if ( is_wp_error( $answer ) ) {
			throw new Bad_Answer( $answer->get_error_message() );
		}
		$status = (int) wp_remote_retrieve_response_code( $answer );
		if ( 200 !== $status ) {
			/* translators: %d: an HTTP status */
			throw new Bad_Answer( sprintf( __( 'it answered %d instead of 200', 'adserver' ), $status ) );
		}
		$body = wp_remote_retrieve_body( $answer );
		if ( '' === wp_remote_retrieve_header( $answer, 'adserver-filled' ) || 1 !== preg_match( '~~u', $body ) ) {
			throw new Bad_Answer( __( 'its answer is not adserver\'s; is this the right address?', 'adserver' ) );
		}
		return $body;
	}

	/** For how many seconds an answer may be shown again. */
	private static function age( array $answer ): int {
		$said = wp_remote_retrieve_header( $answer, 'adserver-max-age' );
		return is_string( $said ) && ctype_digit( $said ) ? (int) min( (int) $said, HOUR_IN_SECONDS ) : 0;
	}
}

/** What came was no answer of adserver's; the words are for the site's owner. */
final class Bad_Answer extends \Exception {
}
