<?php
/**
 * When a service that failed is asked again, and what is shown meanwhile; shared by all processes of the site.
 */

namespace Adserver;

final class Outage {
	const TRANSIENT = 'adserver_outage';
	const KEPT      = 'adserver_kept_';

	/** An answer is written again only when the one that is kept is older, so that not every page view writes. */
	private const REWRITE_S = 30;

	/** @return array{since: float, until: float, why: string}|null */
	public static function now(): ?array {
		$outage = get_transient( self::TRANSIENT );
		return is_array( $outage ) && isset( $outage['since'], $outage['until'], $outage['why'] ) ? $outage : null;
	}

	/** Whether the service may be asked. When a pause is over, one page tries and the others go on without. */
	public static function may_call(): bool {
		$outage = self::now();
		if ( null === $outage ) {
			return true;
		}
		if ( microtime( true ) < $outage['until'] ) {
			return false;
		}
		self::set( array( 'until' => microtime( true ) + Settings::PAUSE_S ) + $outage );
		return true;
	}

	public static function failed( string $why ): void {
		$outage = self::now();
		$at     = microtime( true );
		if ( null === $outage ) {
			$pause = Settings::PAUSE_S;
			// One line an outage.
			error_log( "adserver: $why; pages are shown with their last good ads or without, and it is tried again every $pause s" ); // phpcs:ignore
		}
		self::set(
			array(
				'since' => $outage['since'] ?? $at,
				'until' => $at + Settings::PAUSE_S,
				'why'   => $why,
			)
		);
	}

	public static function answered(): void {
		if ( null !== self::now() ) {
			self::over();
		}
	}

	/** Also when the service's address was changed: nobody has asked there yet. */
	public static function over(): void {
		self::set( array() );
	}

	/** Without an end it is loaded with the options, so that asking for it costs no query. */
	private static function set( array $outage ): void {
		set_transient( self::TRANSIENT, $outage );
	}

	/** The last good answers to *question*, as long as they may be shown. @return list<string>|null */
	public static function last_good( string $question ): ?array {
		$kept = self::read( $question );
		return $kept && time() < $kept['until'] ? $kept['answers'] : null;
	}

	/** @param list<string> $answers May be shown for *age_s* seconds from now. */
	public static function keep( string $question, array $answers, int $age_s ): void {
		$kept = self::read( $question );
		if ( $age_s < 1 || ( $kept && $kept['made'] > time() - self::REWRITE_S && time() < $kept['until'] ) ) {
			return;
		}
		$value = array(
			'answers' => $answers,
			'made'    => time(),
			'until'   => time() + $age_s,
		);
		set_transient( self::name( $question ), $value, $age_s );
	}

	private static function read( string $question ): ?array {
		$kept = get_transient( self::name( $question ) );
		return is_array( $kept ) && isset( $kept['answers'], $kept['made'], $kept['until'] ) ? $kept : null;
	}

	private static function name( string $question ): string {
		return self::KEPT . md5( $question );
	}
}
