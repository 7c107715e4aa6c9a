<?php
/**
 * What the site's owner has set. One option, read whole.
 */

namespace Adserver;

final class Settings {
	const OPTION = 'adserver';

	/** In seconds: how long one page may wait, and for how long nobody asks after a failure. */
	const BUDGET_S = 0.3;
	const PAUSE_S  = 30;

	const MODES = array( 'auto', 'snippet', 'placeholder' );

	/** @return array{url: string, public_url: string, mode: string} */
	public static function all(): array {
		$kept = get_option( self::OPTION );
		$kept = is_array( $kept ) ? $kept : array();
		return array(
			'url'        => is_string( $kept['url'] ?? null ) ? $kept['url'] : '',
			'public_url' => is_string( $kept['public_url'] ?? null ) ? $kept['public_url'] : '',
			'mode'       => in_array( $kept['mode'] ?? null, self::MODES, true ) ? $kept['mode'] : 'auto',
		);
	}

	/** Where this site's server finds the service, without a slash at its end; '' where nobody has said. */
	public static function url(): string {
		return self::all()['url'];
	}

	/** Where readers' browsers find it. */
	public static function public_url(): string {
		return self::all()['public_url'];
	}

	/** Whether pages carry boxes that each reader's browser fills, because a cache keeps the pages. */
	public static function uses_placeholders(): bool {
		$all = self::all();
		if ( '' === $all['public_url'] || 'snippet' === $all['mode'] ) {
			return false;
		}
		return 'placeholder' === $all['mode'] || ( defined( 'WP_CACHE' ) && \WP_CACHE );
	}

	/** The address as it is kept; null where *text* cannot be the address of a service. */
	public static function read_address( string $text ): ?string {
		$text  = rtrim( trim( $text ), '/' );
		$parts = wp_parse_url( $text );
		$good  = is_array( $parts )
			&& in_array( strtolower( $parts['scheme'] ?? '' ), array( 'http', 'https' ), true )
			&& '' !== ( $parts['host'] ?? '' )
			&& ! isset( $parts['user'] ) && ! isset( $parts['query'] ) && ! isset( $parts['fragment'] )
			&& 1 === preg_match( '~^[!#-;=?-\[\]_a-z\~]+$~Di', $text );
		return $good ? $text : null;
	}
}
