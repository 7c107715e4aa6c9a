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
	/** @var float Seconds the page has waited for ads. */
	private static $waited = 0.0;

	public static function watch(): void {
		// The innermost of buffers: what other plugins do to a whole page, keeping it among them, they do to the filled one.
		add_action( 'template_redirect', array( self::class, 'begin' ), PHP_INT_MAX );
		add_action( 'shutdown', array( self::class, 'end' ), 0 ); // WordPress flushes all buffers at 1.
		add_filter( 'the_content', array( self::class, 'fill_alone' ), PHP_INT_MAX );
	}

	public static function begin(): void {
		if ( null === self::$level && ! is_feed() && ! is_robots() && ! is_favicon() ) {
			ob_start( array( self::class, 'pass' ) );
			self::$level = ob_get_level();
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

	/** For what is no page: answers of the REST API, mails, whatever runs from a command line. */
	public static function fill_alone( $content ) {
		return null === self::$level && is_string( $content ) && ! is_feed() ? self::fill( $content ) : $content;
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
	 * @return list<string>
	 */
	public static function answer( array $asks ): array {
		$is_page = null !== self::$level || did_action( 'shutdown' );
		if ( $is_page && ++self::$calls > self::MOST_CALLS ) {
			return array();
		}
		$left  = Settings::BUDGET_S - ( $is_page ? self::$waited : 0.0 );
		$began = microtime( true );
		if ( Settings::uses_placeholders() ) {
			$answers = self::boxes( $asks, $left );
		} else {
			$answers = self::snippets( $asks, $left );
		}
		self::$waited += microtime( true ) - $began;
		return $answers ?? array();
	}

	private static function snippets( array $asks, float $budget_s ): ?array {
		if ( '' === Settings::url() ) {
			return null;
		}
		self::forbid_keeping(); // Without its ads, too: the next view may have them.
		$facts = About::page();
		$query = About::query( $facts, About::consent() );
		// Anybody can make up addresses that are not found and words that are looked for.
		$once = About::is_personal( $facts ) || is_404() || is_search();
		return Line::ask( $asks, $query, About::wants_privacy(), $once ? Line::ONCE : Line::OUTAGES, $budget_s );
	}

	/** Boxes are the same for all readers and pages. */
	private static function boxes( array $asks, float $budget_s ): ?array {
		$answers = Line::ask( $asks, '?repair=0&format=placeholder', false, Line::ALL, $budget_s );
		if ( null === $answers ) {
			self::forbid_page_cache(); // Or else it would keep the page without its ads.
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
