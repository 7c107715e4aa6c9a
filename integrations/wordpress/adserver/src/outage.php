<?php
/**
 * When a service that failed is asked again, and what is shown meanwhile; shared by all processes of the site.
 */

namespace Adserver;

final class Outage {
	const TRANSIENT = 'adserver_outage';
	const KEPT      = 'adserver_kept_';

	/** Answers are kept in so many places, a newer one in the place of an older, so that nobody fills the database. */
	private const PLACES     = 256;
	private const MOST_BYTES = 65536;

	/** A place is written again only when what is kept there is older, so that not every page view writes. */
	private const REWRITE_S = 30;

	/** @return array{since: int, until: int, why: string}|null */
	public static function now(): ?array {
		$state = get_transient( self::TRANSIENT );
		return is_array( $state ) && isset( $state['since'], $state['until'], $state['why'] ) ? $state : null;
	}

	/** Whether the service may be asked. When a pause is over, one page tries and the others go on without. */
	public static function may_call(): bool {
		$outage = self::now();
		if ( null === $outage ) {
			return true;
		}
		$at = time();
		return $at > $outage['until'] && self::swap( array( 'until' => $at + Settings::PAUSE_S ) + $outage );
	}

	public static function failed( string $why ): void {
		self::read_again();
		$outage = self::now();
		$pause  = Settings::PAUSE_S;
		$why    = self::in_one_line( $why );
		$new    = array(
			'since' => $outage['since'] ?? time(),
			'until' => time() + $pause,
			'why'   => $why,
		);
		if ( self::swap( $new ) && null === $outage ) {
			// One line an outage, however many pages meet it at once.
			error_log( "adserver: $why; pages are shown with their last good ads or without, and it is tried again every $pause s" ); // phpcs:ignore
		}
	}

	/** As any database and any log takes it, whatever a server has said. */
	private static function in_one_line( string $text ): string {
		$line = preg_replace( '~[^\x{20}-\x{7e}\x{a0}-\x{ffff}]+~u', ' ', $text );
		return trim( $line ?? (string) preg_replace( '~[^\x20-\x7e]+~', ' ', $text ) );
	}

	public static function answered(): void {
		if ( null !== self::now() ) {
			self::over();
		}
	}

	/**
	 * Also when the service's address was changed: nobody has asked there yet.
	 *
	 * What has no end is loaded with the options, so that asking for it costs no query.
	 */
	public static function over(): void {
		set_transient( self::TRANSIENT, array( 'ended' => uniqid( '', true ) ) ); // No two states are the same.
	}

	/**
	 * Makes the state *new* where it still is what this process has read: of several that try at once, one does, and
	 * is told so.
	 */
	private static function swap( array $new ): bool {
		global $wpdb;
		$old = get_transient( self::TRANSIENT );
		if ( wp_using_ext_object_cache() ) {
			$won = wp_cache_add( self::TRANSIENT . '_' . md5( serialize( $old ) ), 1, 'adserver', Settings::PAUSE_S ); // phpcs:ignore
			if ( $won ) {
				set_transient( self::TRANSIENT, $new );
			}
			return $won;
		}
		$name = '_transient_' . self::TRANSIENT;
		// phpcs:disable WordPress.DB
		if ( false === $old ) {
			$rows = $wpdb->query( $wpdb->prepare( "INSERT IGNORE INTO $wpdb->options (option_name, option_value, autoload) VALUES (%s, %s, 'yes')", $name, serialize( $new ) ) );
		} else {
			$rows = $wpdb->query( $wpdb->prepare( "UPDATE $wpdb->options SET option_value = %s WHERE option_name = %s AND option_value = %s", serialize( $new ), $name, serialize( $old ) ) );
		}
		// phpcs:enable
		if ( false === $rows ) { // A database that cannot do this: better two lines than no pause.
			set_transient( self::TRANSIENT, $new );
		}
		self::read_again();
		return 0 !== $rows;
	}

	/** What other processes have written since this one began. */
	private static function read_again(): void {
		if ( wp_using_ext_object_cache() ) {
			wp_cache_get( self::TRANSIENT, 'transient', true );
			return;
		}
		wp_cache_delete( 'alloptions', 'options' );
		wp_cache_delete( 'notoptions', 'options' );
		wp_cache_delete( '_transient_' . self::TRANSIENT, 'options' );
	}

	/** The last good answers to *question*, as long as they may be shown. @return list<string>|null */
	public static function last_good( string $question ): ?array {
		$kept = self::read( $question );
		return $kept && $kept['question'] === md5( $question ) && time() < $kept['until'] ? $kept['answers'] : null;
	}

	/** @param list<string> $answers May be shown for *age_s* seconds from now. */
	public static function keep( string $question, array $answers, int $age_s ): void {
		$kept = self::read( $question );
		$new  = ! $kept || $kept['made'] <= time() - self::REWRITE_S || time() >= $kept['until'];
		if ( $age_s < 1 || ! $new || array_sum( array_map( 'strlen', $answers ) ) > self::MOST_BYTES ) {
			return;
		}
		$value = array(
			'question' => md5( $question ),
			'answers'  => $answers,
			'made'     => time(),
			'until'    => time() + $age_s,
		);
		set_transient( self::place( $question ), $value, $age_s );
	}

	/** What is kept in the place of *question*, be it of another. */
	private static function read( string $question ): ?array {
		$kept = get_transient( self::place( $question ) );
		return is_array( $kept ) && isset( $kept['question'], $kept['answers'], $kept['made'], $kept['until'] ) ? $kept : null;
	}

	private static function place( string $question ): string {
		return self::KEPT . hexdec( substr( md5( $question ), 0, 6 ) ) % self::PLACES;
	}
}
