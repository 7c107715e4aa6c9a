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
	 * *texts* with their marks filled, under their keys.
	 *
	 * @param array<int|string, string> $texts Each HTML for itself: a whole page, an article.
	 * @param callable                  $answer Is given the asks, pairs of a name and an id, and for each of them the key of
	 *                                          the text that it is of; returns as many texts, or none at all. It is called
	 *                                          once, or not at all where there is nothing to ask.
	 * @return array<int|string, string>
	 */
	public static function fill( array $texts, callable $answer ): array {
		$asks = array();
		$of   = array();
		$all  = array();
		foreach ( $texts as $key => $text ) {
			list( $pieces, $marks ) = self::split( $text );
			$bare                   = new Reading( implode( '', $pieces ) );
			$before                 = 0;
			$all[ $key ]            = array( $pieces[0] );
			foreach ( $marks as $number => $ask ) {
				$before += strlen( $pieces[ $number ] );
				if ( count( $asks ) < self::MOST && $bare->is_html_at( $before ) ) {
					$all[ $key ][] = count( $asks );
					$asks[]        = $ask;
					$of[]          = $key;
				}
				$all[ $key ][] = $pieces[ $number + 1 ];
			}
		}
		$answers = $asks ? $answer( $asks, $of ) : array();
		foreach ( $all as $key => $pieces ) {
			$filled = '';
			foreach ( $pieces as $piece ) {
				$filled .= is_int( $piece ) ? ( $answers[ $piece ] ?? '' ) : $piece;
			}
			$texts[ $key ] = $filled;
		}
		return $texts;
	}

	/**
	 * What stands around the marks of *text*, always one more than there are marks, and what these ask for.
	 *
	 * @return array{list<string>, list<array{string, string}>}
	 */
	private static function split( string $text ): array {
		$found = array();
		preg_match_all( self::MARK, $text, $found, PREG_SET_ORDER | PREG_OFFSET_CAPTURE );
		$pieces = array();
		$asks   = array();
		$at     = 0;
		foreach ( $found as $one ) {
			list( list( $whole, $offset ), list( $name ), list( $id ), list( $signature ) ) = $one;
			if ( hash_equals( self::sign( $name, $id ), $signature ) ) {
				$pieces[] = self::without_mangled( substr( $text, $at, $offset - $at ) );
				$asks[]   = array( $name, $id );
				$at       = $offset + strlen( $whole );
			}
		}
		$pieces[] = self::without_mangled( substr( $text, $at ) );
		return array( $pieces, $asks );
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
 * Reads HTML once from its beginning as a browser's tokenizer does, to say of one place after the other whether an element
 * may begin there: not in a tag or an attribute, not in a comment, not in what is no markup, such as a script or a title.
 */
final class Reading {
	private const BLANK = '[\t\n\f\r ]';
	private const NAME  = '[^\t\n\f\r >/=]';

	/** A tag, whole. A quote begins a value behind an equals sign only, and one that never ends makes it none. */
	private const TAG = '~\G</?([a-z][^\t\n\f\r >/]*+)(?>[\t\n\f\r /]++'
		. '|[^\t\n\f\r >/]' . self::NAME . '*+'
		. '(?>' . self::BLANK . '*+=' . self::BLANK . '*+(?>"[^"]*+"|\'[^\']*+\'|(?=>)|[^"\'\t\n\f\r >][^\t\n\f\r >]*+)|(?!' . self::BLANK . '*+=)))*+>~i';

	/** Elements that hold text, whatever it looks like. */
	private const TEXTS = array( 'script', 'style', 'textarea', 'title', 'xmp', 'iframe', 'noembed', 'noframes', 'plaintext' );

	/** @var string */
	private $html;
	/** @var int Up to here it has been read. */
	private $at = 0;
	/** @var int Where the last that was read begins, inside of which nothing can be put. */
	private $first = 0;
	/** @var int And its last place. */
	private $last = -1;

	public function __construct( string $html ) {
		$this->html = $html;
	}

	/** *offset* must not be before that of the last call. */
	public function is_html_at( int $offset ): bool {
		while ( $this->last < $offset && $this->read() ) {
			continue;
		}
		return $offset < $this->first || $offset > $this->last;
	}

	/** Goes on to the next tag, comment or element of text; false where there is none. */
	private function read(): bool {
		$length = strlen( $this->html );
		do {
			$begins = $this->at < $length ? strpos( $this->html, '<', $this->at ) : false;
			if ( false === $begins ) {
				$this->at = $length;
				return false;
			}
			$this->at = $begins + 1;
			$next     = substr( $this->html, $begins + 1, 2 );
		} while ( 1 !== preg_match( '~^(?:[!?]|/?[a-z]|/.)~is', $next ) ); // "3 < 4"

		$name        = '';
		$this->at    = 1 === preg_match( '~^/?[a-z]~i', $next ) ? $this->end_of_tag( $begins, $name ) : $this->end_of_comment( $begins );
		$this->first = $begins + 1;
		$this->last  = $this->at - 1;
		if ( '/' !== $next[0] && in_array( $name, self::TEXTS, true ) ) {
			$this->at   = 'script' === $name ? $this->end_of_script() : $this->end_of_text( $name );
			$this->last = $this->at;
		}
		return true;
	}

	private function end_of_tag( int $begins, string &$name ): int {
		$tag = array();
		if ( 1 !== preg_match( self::TAG, $this->html, $tag, 0, $begins ) ) {
			return strlen( $this->html ) + 1; // It never ends.
		}
		$name = strtolower( $tag[1] );
		return $begins + strlen( $tag[0] );
	}

	private function end_of_comment( int $begins ): int {
		if ( '<!--' !== substr( $this->html, $begins, 4 ) ) {
			return $this->behind( '~>~', $begins + 2 );
		}
		return $this->behind( 1 === preg_match( '~\G-?>~', $this->html, $found, 0, $begins + 4 ) ? '~>~' : '~--!?>~', $begins + 4 );
	}

	private function end_of_text( string $name ): int {
		$found = array();
		if ( 'plaintext' === $name || 1 !== preg_match( "~</$name(?=[\\t\\n\\f\\r />])~i", $this->html, $found, PREG_OFFSET_CAPTURE, $this->at ) ) {
			return strlen( $this->html ) + 1;
		}
		return $found[0][1];
	}

	/** A script ends at its end tag, unless that stands in a comment behind another script's beginning. */
	private function end_of_script(): int {
		$found   = array();
		$comment = false;
		$inner   = false;
		$at      = min( $this->at, strlen( $this->html ) );
		while ( 1 === preg_match( '~<!--|-->|<(/?)script(?=[\t\n\f\r />])~i', $this->html, $found, PREG_OFFSET_CAPTURE, $at ) ) {
			list( $what, $place ) = $found[0];
			$at                   = $place + strlen( $what );
			if ( '<!--' === $what ) {
				$comment = true;
				$at     -= 2; // What follows may end it: "<!-->".
			} elseif ( '-->' === $what ) {
				$comment = false;
				$inner   = false;
			} elseif ( '/' !== $found[1][0] ) {
				$inner = $comment;
			} elseif ( $inner ) {
				$inner = false;
			} else {
				return $place;
			}
		}
		return strlen( $this->html ) + 1;
	}

	private function behind( string $pattern, int $from ): int {
		$found = array();
		if ( $from > strlen( $this->html ) || 1 !== preg_match( $pattern, $this->html, $found, PREG_OFFSET_CAPTURE, $from ) ) {
			return strlen( $this->html ) + 1;
		}
		return $found[0][1] + strlen( $found[0][0] );
	}
}
