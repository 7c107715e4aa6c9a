<?php
/**
 * One page on its way to a reader: it is held back until it is complete, and then all its marks are filled at once.
 */

namespace Adserver;

final class Page {
	/** What is sent in parts, such as by a theme that flushes, is answered by two calls, and after these by none. */
	private const MOST_CALLS = 2;

	/** @var int|null The level of output buffers that ours is; null while there is none. */
	private static $level = null;
	/** @var int */
	private static $calls = 0;
	/** @var float Seconds that the request has waited for ads. */
	private static $waited = 0.0;
	/** @var array<int|string, array<string, true>> The boxes that each text has. */
	private static $boxes = array();

	public static function watch(): void {
		// The innermost of buffers: what other plugins do to a whole page, keeping it among them, they do to the filled one.
		add_action( 'template_redirect', array( self::class, 'begin' ), PHP_INT_MAX );
		add_action( 'shutdown', array( self::class, 'end' ), 0 ); // WordPress flushes all buffers at 1.
		add_filter( 'the_content', array( self::class, 'fill_alone' ), PHP_INT_MAX );
		add_filter( 'rest_pre_echo_response', array( self::class, 'fill_answer' ), PHP_INT_MAX, 3 );
	}

	public static function begin(): void {
		if ( null === self::$level && ! is_feed() && ! is_robots() && ! is_favicon() ) {
			ob_start( array( self::class, 'pass' ) );
			self::$level = ob_get_level();
			self::$calls = 0; // Whatever else was filled before shares its time with the page and takes no call of it.
			self::$boxes = array();
		}
	}

	/**
	 * Takes the complete page out of the buffer and fills it. Not within the buffer's own callback, because PHP forbids
	 * there what other plugins may do when they hear of a call.
	 */
	public static function end(): void {
		if ( null === self::$level || ob_get_level() < self::$level ) {
			return;
		}
		while ( ob_get_level() > self::$level ) {
			ob_end_flush();
		}
		$page        = (string) ob_get_contents();
		self::$level = null;
		ob_end_clean();
		echo self::fill( $page ); // phpcs:ignore WordPress.Security.EscapeOutput -- the page, and the service's HTML
	}

	/** What somebody else flushes. */
	public static function pass( string $part, int $phase ): string {
		return null === self::$level || $phase & PHP_OUTPUT_HANDLER_CLEAN ? $part : self::fill( $part );
	}

	/**
	 * For what is no page: mails, a theme's own calls, whatever runs from a command line. An answer of the REST API keeps
	 * its marks until it is complete; the desk, where articles are written, shows no ads.
	 */
	public static function fill_alone( $content ) {
		if ( null !== self::$level || ! is_string( $content ) || is_feed() || ( defined( 'REST_REQUEST' ) && \REST_REQUEST ) ) {
			return $content;
		}
		if ( is_admin() && ! wp_doing_ajax() ) {
			return self::without_marks( array( $content ) )[0];
		}
		self::$boxes = array();
		return self::fill( $content );
	}

	/** An answer of the REST API: the marks of all its articles are filled at once, and those of an editor's not at all. */
	public static function fill_answer( $answer, $server, $request ) {
		$texts = array();
		self::walk(
			$answer,
			static function ( string $text ) use ( &$texts ): string {
				$texts[] = $text;
				return $text;
			}
		);
		if ( ! $texts ) {
			return $answer;
		}
		self::$boxes = array();

		$filled = 'edit' === $request['context'] ? self::without_marks( $texts ) : Marks::fill( $texts, array( self::class, 'answer' ) );
		return self::walk(
			$answer,
			static function () use ( &$filled ): string {
				return (string) array_shift( $filled );
			}
		);
	}

	/** *value*, lists and objects in lists and objects, with what *change* makes of its texts that have marks. */
	private static function walk( $value, callable $change ) {
		if ( is_string( $value ) ) {
			return Marks::has_marks( $value ) ? $change( $value ) : $value;
		}
		if ( is_array( $value ) ) {
			foreach ( $value as $key => $one ) {
				$value[ $key ] = 'raw' === $key ? $one : self::walk( $one, $change ); // What was written stays so.
			}
		} elseif ( $value instanceof \stdClass ) {
			$value = (object) self::walk( (array) $value, $change );
		}
		return $value;
	}

	private static function without_marks( array $texts ): array {
		return Marks::fill( $texts, '__return_empty_array' );
	}

	/** *html* with its marks filled, by one call at most. */
	public static function fill( string $html ): string {
		if ( ! Marks::has_marks( $html ) ) {
			return $html;
		}
		return Marks::fill( array( $html ), array( self::class, 'answer' ) )[0];
	}

	/**
	 * @param list<array{string, string}> $asks
	 * @param list<int|string>            $of The text that each of them is of.
	 * @return list<string>
	 */
	public static function answer( array $asks, array $of ): array {
		$left = Settings::BUDGET_S;
		if ( 'cli' !== PHP_SAPI ) { // Nobody waits for what runs from a command line.
			++self::$calls;
			$left = self::$calls > self::MOST_CALLS ? 0.0 : $left - self::$waited;
		}
		$began   = microtime( true );
		$answers = Settings::uses_placeholders() ? self::boxes( $asks, $of, $left ) : self::snippets( $asks, $left );

		self::$waited += microtime( true ) - $began;
		return $answers ?? array();
	}

	private static function snippets( array $asks, float $budget_s ): ?array {
		if ( '' === Settings::url() ) {
			return null;
		}
		self::forbid_keeping(); // Without its ads, too: the next view may have them.
		if ( self::$calls > self::MOST_CALLS ) {
			return null;
		}
		$facts = About::page();
		$query = About::query( $facts, About::consent() );
		// Anybody can make up addresses that are not found and words that are looked for.
		$once = About::is_personal( $facts ) || is_404() || is_search();
		return Line::ask( $asks, $query, About::wants_privacy(), $once ? Line::ONCE : Line::OUTAGES, $budget_s );
	}

	/**
	 * Boxes are the same for all readers and pages. Of a slot that is on a page twice the browser fills the first box;
	 * for the other there is no room.
	 */
	private static function boxes( array $asks, array $of, float $budget_s ): ?array {
		$answers = Line::ask( $asks, '?repair=0&format=placeholder', false, Line::ALL, $budget_s );
		if ( null === $answers ) {
			self::forbid_page_cache(); // Or else it would keep the page without its ads.
			return null;
		}
		foreach ( $answers as $number => $box ) {
			$named = array();
			if ( 1 !== preg_match( '~^<div [^>]*?(data-adserver-(?:slot|group)="[^"]*")~', $box, $named ) ) {
				continue;
			}
			if ( isset( self::$boxes[ $of[ $number ] ][ $named[1] ] ) ) {
				$answers[ $number ] = '';
			}
			self::$boxes[ $of[ $number ] ][ $named[1] ] = true;
		}
		return $answers;
	}

	/**
	 * The page has tokens of one reader. The browser itself may keep it, so that going back shows the same view and does
	 * not make another.
	 */
	private static function forbid_keeping(): void {
		self::forbid_page_cache();
		if ( ! headers_sent() && ! preg_grep( '~^cache-control:.*no-store~i', headers_list() ) ) {
			header( 'Cache-Control: private, no-cache' );
		}
	}

	/** What WordPress's page caches have agreed on. They keep whole pages, whatever their headers say. */
	private static function forbid_page_cache(): void {
		if ( ! defined( 'DONOTCACHEPAGE' ) ) {
			define( 'DONOTCACHEPAGE', true );
		}
	}
}
