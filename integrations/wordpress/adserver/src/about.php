<?php
/**
 * What the page says of itself and its reader, in the names of the delivery API.
 */

namespace Adserver;

final class About {
	/** The service takes addresses of up to 2,048 bytes. What is said first is worth most; what does not fit is not said. */
	private const MOST_BYTES = 1700;
	private const MOST_TAGS  = 64;

	/** The same of what the script says on its way, which names the page's slots and its address as well. */
	private const MOST_BYTES_OF_ATTRIBUTES = 1200;

	/**
	 * What the page is about: `section`, `tags`, `lang`, `url`, and whatever the filter `adserver_about` adds of
	 * `country`, `device`, `reader` and `keys` (words of the site's own, such as `array( 'edition' => 'late' )`).
	 *
	 * @return array<string, mixed>
	 */
	public static function page(): array {
		$facts = array(
			'section' => '',
			'tags'    => array(),
			'lang'    => get_bloginfo( 'language' ),
			'url'     => '',
		);
		$shown = did_action( 'wp' ) ? get_queried_object() : null;
		if ( $shown instanceof \WP_Post && is_singular() ) {
			$facts['section'] = self::first_slug( get_the_terms( $shown, 'category' ) );
			$facts['tags']    = self::slugs( get_the_terms( $shown, 'post_tag' ) );
		} elseif ( $shown instanceof \WP_Term && is_category() ) {
			$facts['section'] = urldecode( $shown->slug );
		} elseif ( $shown instanceof \WP_Term && is_tag() ) {
			$facts['tags'] = array( urldecode( $shown->slug ) );
		}
		$path = isset( $_SERVER['REQUEST_URI'] ) ? strtok( wp_unslash( (string) $_SERVER['REQUEST_URI'] ), '?#' ) : false; // phpcs:ignore
		if ( is_string( $path ) && '/' === substr( $path, 0, 1 ) ) {
			$home         = wp_parse_url( home_url() );
			$port         = isset( $home['port'] ) ? ":{$home['port']}" : '';
			$facts['url'] = ( $home['scheme'] ?? 'http' ) . '://' . ( $home['host'] ?? '' ) . $port . $path;
		}
		$said = apply_filters( 'adserver_about', $facts );
		return is_array( $said ) ? $said : $facts;
	}

	/**
	 * Whether the reader agreed to be told apart: true or false, or null where nobody has asked.
	 * A site's consent banner says so by the filter `adserver_consent`.
	 */
	public static function consent(): ?bool {
		$said = apply_filters( 'adserver_consent', null );
		return null === $said ? null : true === $said || 1 === $said || '1' === $said;
	}

	/** The reader's browser asks not to be told apart. */
	public static function wants_privacy(): bool {
		return '1' === ( $_SERVER['HTTP_SEC_GPC'] ?? '' ) || '1' === ( $_SERVER['HTTP_DNT'] ?? '' );
	}

	/** Whether *facts* name a reader: then the answer is theirs alone. */
	public static function is_personal( array $facts ): bool {
		return '' !== self::text( $facts['reader'] ?? '' );
	}

	/** The query of a call for snippets. */
	public static function query( array $facts, ?bool $consent ): string {
		$pairs = array();
		if ( null !== $consent ) {
			$pairs[] = array( 'consent', $consent ? '1' : '0' );
		}
		$pairs   = array_merge( $pairs, self::pairs( $facts + array( 'device' => self::device() ) ) );
		$pairs[] = array( 'url', (string) strtok( self::text( $facts['url'] ?? '' ), '?#' ) );
		$query   = '?repair=0'; // WordPress has read the shortcodes.
		foreach ( self::fitting( $pairs, self::MOST_BYTES - strlen( $query ) ) as $pair ) {
			$query .= self::part( $pair );
		}
		return $query;
	}

	/**
	 * The same for the script that fills placeholders: its tag's data attributes.
	 *
	 * @return array<string, string>
	 */
	public static function attributes( array $facts, ?bool $consent ): array {
		$said = array( 'data-consent' => $consent ? '1' : '' );
		$tags = array();
		$keys = array();
		foreach ( self::fitting( self::pairs( $facts ), self::MOST_BYTES_OF_ATTRIBUTES ) as list( $name, $value ) ) {
			if ( 'tag' === $name ) {
				$tags[] = str_replace( ',', ' ', $value );
			} elseif ( 0 === strpos( $name, 'key.' ) ) {
				$keys[] = rawurlencode( substr( $name, 4 ) ) . '=' . rawurlencode( $value );
			} else {
				$said[ "data-$name" ] = $value;
			}
		}
		$said['data-tags'] = implode( ', ', $tags );
		$said['data-keys'] = implode( '&', $keys );
		return array_filter( $said, 'strlen' );
	}

	/**
	 * @param list<array{string, string}> $pairs
	 * @return list<array{string, string}> Those that a query of so many bytes has room for.
	 */
	private static function fitting( array $pairs, int $bytes ): array {
		$fitting = array();
		foreach ( $pairs as $pair ) {
			$needs = strlen( self::part( $pair ) );
			if ( '' !== $pair[1] && $needs <= $bytes ) {
				$bytes    -= $needs;
				$fitting[] = $pair;
			}
		}
		return $fitting;
	}

	/** @param array{string, string} $pair */
	private static function part( array $pair ): string {
		return '&' . rawurlencode( $pair[0] ) . '=' . rawurlencode( $pair[1] );
	}

	/** @return list<array{string, string}> Names and values of the delivery API, without `consent` and `url`. */
	private static function pairs( array $facts ): array {
		$pairs = array();
		foreach ( array( 'section', 'lang', 'country', 'device', 'reader' ) as $name ) {
			$pairs[] = array( $name, self::text( $facts[ $name ] ?? '' ) );
		}
		foreach ( self::texts( $facts['tags'] ?? array() ) as $tag ) {
			$pairs[] = array( 'tag', $tag );
		}
		foreach ( is_array( $facts['keys'] ?? null ) ? $facts['keys'] : array() as $name => $values ) {
			foreach ( self::texts( $values ) as $value ) {
				$pairs[] = array( "key.$name", $value );
			}
		}
		return $pairs;
	}

	/** `desktop`, `mobile` or `tablet`, as the service tells them apart by the same headers; '' where nothing says. */
	private static function device(): string {
		$hint = $_SERVER['HTTP_SEC_CH_UA_MOBILE'] ?? '';
		if ( '?1' === $hint ) {
			return 'mobile';
		}
		if ( '?0' === $hint ) {
			return 'Android' === trim( (string) ( $_SERVER['HTTP_SEC_CH_UA_PLATFORM'] ?? '' ), '"' ) ? 'tablet' : 'desktop';
		}
		$agent = (string) ( $_SERVER['HTTP_USER_AGENT'] ?? '' );
		if ( 1 !== preg_match( '~^Mozilla/[0-9.]+ \(~', $agent ) ) {
			return '';
		}
		$phone = false !== strpos( $agent, 'Mobi' );
		if ( preg_match( '~\b(?:iPad|Tablet|PlayBook|Silk|Kindle)\b~', $agent ) || ( ! $phone && false !== strpos( $agent, 'Android' ) ) ) {
			return 'tablet';
		}
		return $phone ? 'mobile' : 'desktop';
	}

	/** @return list<string> */
	private static function texts( $values ): array {
		$texts = array_map( array( self::class, 'text' ), array_slice( (array) $values, 0, self::MOST_TAGS ) );
		return array_values( array_filter( $texts, 'strlen' ) );
	}

	private static function text( $value ): string {
		$text = is_string( $value ) || is_int( $value ) ? trim( (string) $value ) : '';
		return wp_check_invalid_utf8( $text );
	}

	private static function first_slug( $terms ): string {
		return self::slugs( $terms )[0] ?? '';
	}

	/** @return list<string> */
	private static function slugs( $terms ): array {
		return is_array( $terms ) ? array_map( 'urldecode', array_values( wp_list_pluck( $terms, 'slug' ) ) ) : array();
	}
}
