<?php
/**
 * Marks: what stands where an ad goes until the whole page is there and all its ads are asked for at once.
 *
 * A mark is an HTML comment that names what is asked for, signed with the site's own salt: so one that nobody fills shows
 * nothing, a fragment kept in a cache is filled on whichever page it lands, and no commenter can write one.
 * Rule: an ad is put where a page has HTML. In a tag, an attribute, a script or a title it would break the page, and
 * there a mark becomes nothing, as does whatever is left of one that another plugin has escaped.
 */

namespace Adserver;

final class Marks {
	const NAMES = array( 'the_ad', 'the_ad_group', 'the_ad_placement' );

	/** Asks that one call answers; the marks behind these become nothing. */
	const MOST = 100;

	const BEGINS = '<!--adserver ';

	private const BLANKS = " \t\n\x0B\f\r";
	private const ID     = '[A-Za-z0-9_-]{1,64}';
	private const MARK   = '~<!--adserver (the_ad|the_ad_group|the_ad_placement) ([A-Za-z0-9_-]{1,64}) ([0-9a-f]{16})-->~';
	private const OPAQUE = '~<(?:!--(?!adserver )|(script|style|textarea|title|xmp|noembed|noframes)(?=[\s/>]))~i';

	/** As texturized, escaped for HTML, for JSON. */
	private const MANGLED = '~(?:<|&lt;|&#0*60;|&#x0*3c;|\\\\u003c)!(?:--|\x{2013}|&#8211;|&ndash;)adserver'
		. '(?:\s|&nbsp;|%20)the_ad(?:_group|_placement)?(?:\s|%20)[A-Za-z0-9_-]{1,64}(?:\s|%20)[0-9a-f]{16}'
		. '(?:--|\x{2013}|&#8211;|&ndash;)(?:>|&gt;|&#0*62;|&#x0*3e;|\\\\u003e)~iu';

	/** The mark of what *id* names; '' where that can be no id. */
	public static function mark( string $name, string $id ): string {
		$id = trim( $id, self::BLANKS );
		if ( ! in_array( $name, self::NAMES, true ) || 1 !== preg_match( '~^' . self::ID . '$~D', $id ) ) {
			return '';
		}
		return self::BEGINS . "$name $id " . self::sign( $name, $id ) . '-->';
	}

	/** Whether there is anything to do for *page*. */
	public static function has_marks( string $page ): bool {
		return false !== strpos( $page, 'adserver the_ad' ) || false !== strpos( $page, 'adserver%20the_ad' );
	}

	/**
	 * *page* with its marks filled.
	 *
	 * @param callable $answer Is given the asks, pairs of a name and an id, and returns as many texts, or none at all.
	 *                         It is called once, or not at all where there is nothing to ask.
	 */
	public static function fill( string $page, callable $answer ): string {
		$found = array();
		preg_match_all( self::MARK, $page, $found, PREG_SET_ORDER | PREG_OFFSET_CAPTURE );
		$asks   = array();
		$pieces = array();
		$at     = 0;
		$seen   = new Reading( $page, self::MARK, self::OPAQUE );
		foreach ( $found as $one ) {
			list( list( $whole, $offset ), list( $name ), list( $id ), list( $signature ) ) = $one;
			if ( ! hash_equals( self::sign( $name, $id ), $signature ) ) {
				continue;
			}
			$pieces[] = substr( $page, $at, $offset - $at );
			$at       = $offset + strlen( $whole );
			$open     = $seen->is_html_at( $offset );
			$pieces[] = $open && count( $asks ) < self::MOST ? count( $asks ) : '';
			if ( $open && count( $asks ) < self::MOST ) {
				$asks[] = array( $name, $id );
			}
		}
		$answers = $asks ? $answer( $asks ) : array();
		$filled  = '';
		foreach ( $pieces as $piece ) {
			$filled .= is_int( $piece ) ? ( $answers[ $piece ] ?? '' ) : self::without_mangled( $piece );
		}
		return $filled . self::without_mangled( substr( $page, $at ) );
	}

	private static function without_mangled( string $text ): string {
		if ( ! self::has_marks( $text ) ) {
			return $text;
		}
		$bare = preg_replace( self::MANGLED, '', $text );
		if ( null === $bare ) { // Not UTF-8.
			$bare = preg_replace( str_replace( '\x{2013}', '\xE2\x80\x93', substr( self::MANGLED, 0, -1 ) ), '', $text );
		}
		return $bare ?? $text;
	}

	private static function sign( string $name, string $id ): string {
		return substr( hash_hmac( 'sha256', "$name $id", 'adserver' . wp_salt( 'nonce' ) ), 0, 16 );
	}
}

/**
 * Reads a page once from its beginning, to say of one place after the other whether HTML stands there.
 */
final class Reading {
	/** So far before a place a tag may begin that it stands in. */
	private const LONGEST_TAG = 4096;

	/** @var string */
	private $page;
	/** @var string */
	private $mark;
	/** @var string */
	private $opaque;
	/** @var int */
	private $at = 0;
	/** @var string What closes the element or comment that *at* is in; '' in none. */
	private $closes = '';

	public function __construct( string $page, string $mark, string $opaque ) {
		$this->page   = $page;
		$this->mark   = $mark;
		$this->opaque = $opaque;
	}

	/** *offset* must not be before that of the last call. */
	public function is_html_at( int $offset ): bool {
		while ( $this->at < $offset ) {
			if ( '' !== $this->closes ) {
				$end = stripos( $this->page, $this->closes, $this->at );
				if ( false === $end || $end >= $offset ) {
					return false;
				}
				$this->at     = $end + strlen( $this->closes );
				$this->closes = '';
			}
			$next = array();
			if ( 1 !== preg_match( $this->opaque, $this->page, $next, PREG_OFFSET_CAPTURE, $this->at ) || $next[0][1] >= $offset ) {
				break;
			}
			$this->at     = $next[0][1] + strlen( $next[0][0] );
			$this->closes = isset( $next[1] ) ? '</' . $next[1][0] : '-->';
		}
		$this->at = max( $this->at, $offset );
		$from     = max( 0, $offset - self::LONGEST_TAG );
		$before   = (string) preg_replace( $this->mark, '', substr( $this->page, $from, $offset - $from ) );
		$tag      = strrpos( $before, '<' );
		return false === $tag || false !== strpos( $before, '>', $tag ) || 1 !== preg_match( '~^[a-z/]~i', substr( $before, $tag + 1, 1 ) );
	}
}
