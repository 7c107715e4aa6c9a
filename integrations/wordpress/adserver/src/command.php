<?php
/**
 * `wp adserver …`
 */

namespace Adserver;

/**
 * Moves the ads of Advanced Ads to adserver.
 */
final class Command {
	private const PATIENCE_S = 60;
	private const FILE_NAME  = '~^[a-z0-9][a-z0-9_-]{0,63}\.toml$~D';

	/**
	 * Turns the ads, groups and placements of Advanced Ads into adserver's configuration files.
	 *
	 * What has no equal in adserver is listed. Nothing is changed in WordPress and nothing is published: look at the
	 * files, then publish them with `adserver apply <dir>`.
	 *
	 * ## OPTIONS
	 *
	 * <dir>
	 * : The directory to write the files to. It is made where it is missing.
	 *
	 * [--token=<token>]
	 * : A token of adserver's API; or set it as ADSERVER_API_TOKEN, which does not show in lists of processes.
	 *
	 * [--service=<url>]
	 * : The service's address, where it is not the one of the settings.
	 *
	 * [--force]
	 * : Overwrite files that are there.
	 *
	 * ## EXAMPLES
	 *
	 *     wp adserver import config
	 */
	public function import( $args, $options ) {
		$directory = rtrim( (string) ( $args[0] ?? '' ), '/' );
		$url       = isset( $options['service'] ) ? Settings::read_address( (string) $options['service'] ) : Settings::url();
		if ( '' === $directory ) {
			\WP_CLI::error( 'Say where to write the files, such as: wp adserver import config' );
			return;
		}
		if ( null === $url || '' === $url ) {
			\WP_CLI::error( 'No address of adserver is known: save it in Settings › adserver, or say --service=http://127.0.0.1:8000' );
			return;
		}
		$export = Advanced_Ads::collect();
		if ( ! $export['ads'] && ! $export['groups'] && ! (array) $export['placements'] ) {
			\WP_CLI::error( 'There are no ads, groups or placements of Advanced Ads in this site\'s database.' );
			return;
		}
		$token = (string) ( $options['token'] ?? getenv( 'ADSERVER_API_TOKEN' ) );
		try {
			list( $files, $left ) = self::convert( $url, $export, $token );
			self::write( $directory, $files, isset( $options['force'] ) );
		} catch ( Bad_Answer $error ) {
			\WP_CLI::error( $error->getMessage() );
			return;
		}
		foreach ( $left as $one ) {
			\WP_CLI::warning( "not as before: {$one['what']}: {$one['why']}" );
		}
		\WP_CLI::success( sprintf( 'Files in %1$s: %2$d. Not as before: %3$d. Look at them, then: adserver check %1$s', $directory, count( $files ), count( $left ) ) );
	}

	/**
	 * Writes the ads, groups and placements of Advanced Ads to a JSON file, for `adserver import advanced-ads <file>`.
	 *
	 * ## OPTIONS
	 *
	 * <file>
	 * : The file to write.
	 *
	 * @subcommand export-advanced-ads
	 */
	public function export_advanced_ads( $args, $options ) {
		$file = (string) ( $args[0] ?? '' );
		$json = wp_json_encode( Advanced_Ads::collect(), JSON_PRETTY_PRINT | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE );
		if ( ! is_string( $json ) || '' === $file || false === @file_put_contents( $file, "$json\n" ) ) { // phpcs:ignore
			\WP_CLI::error( "\"$file\" could not be written." );
			return;
		}
		\WP_CLI::success( "Written to $file." );
	}

	/**
	 * Says whether pages of this site get their ads.
	 */
	public function test( $args, $options ) {
		require_once __DIR__ . '/connection-test.php';
		$wrong = false;
		foreach ( Connection_Test::run() as list( $kind, $said ) ) {
			if ( 'success' === $kind ) {
				\WP_CLI::log( $said );
			} else {
				\WP_CLI::warning( $said );
				$wrong = $wrong || 'error' === $kind;
			}
		}
		if ( $wrong ) {
			\WP_CLI::error( 'Pages of this site get no ads.' );
		}
	}

	/**
	 * @return array{array<string, string>, list<array{what: string, why: string}>} Files by name, and what has no equal.
	 * @throws Bad_Answer
	 */
	private static function convert( string $url, array $export, string $token ): array {
		$asked = array(
			'timeout'     => self::PATIENCE_S,
			'redirection' => 0,
			'headers'     => array( 'Content-Type' => 'application/json' ) + ( '' === $token ? array() : array( 'Authorization' => "Bearer $token" ) ),
			'body'        => wp_json_encode( $export ),
		);
		$answer = wp_remote_post( "$url/api/import/advanced-ads", $asked );
		if ( is_wp_error( $answer ) ) {
			throw new Bad_Answer( "$url could not be asked: " . $answer->get_error_message() );
		}
		$status = (int) wp_remote_retrieve_response_code( $answer );
		$said   = json_decode( wp_remote_retrieve_body( $answer ), true );
		if ( 200 !== $status ) {
			$why = is_array( $said ) && is_string( $said['detail'] ?? null ) ? ': ' . rtrim( $said['detail'], '.' ) : '';
			$how = 401 === $status || 403 === $status ? ' Say --token=… with a token of somebody who may import.' : '';
			throw new Bad_Answer( "$url answered $status$why.$how" );
		}
		if ( ! is_array( $said ) || ! is_array( $said['files'] ?? null ) || ! is_array( $said['left'] ?? null ) ) {
			throw new Bad_Answer( "$url did not answer as adserver does. Is it as new as this plugin?" );
		}
		$left = array();
		foreach ( $said['left'] as $one ) {
			$left[] = array(
				'what' => is_string( $one['what'] ?? null ) ? $one['what'] : '?',
				'why'  => is_string( $one['why'] ?? null ) ? $one['why'] : '?',
			);
		}
		return array( $said['files'], $left );
	}

	/**
	 * All of *files*, or none.
	 *
	 * @throws Bad_Answer
	 */
	private static function write( string $directory, array $files, bool $overwriting ): void {
		foreach ( $files as $name => $text ) {
			if ( ! is_string( $text ) || 1 !== preg_match( self::FILE_NAME, (string) $name ) ) {
				throw new Bad_Answer( 'The answer names a file that is none of adserver\'s configuration: ' . substr( (string) $name, 0, 80 ) );
			}
			if ( ! $overwriting && file_exists( "$directory/$name" ) ) {
				throw new Bad_Answer( "$directory/$name is there already. Say another directory, or --force to overwrite it." );
			}
		}
		if ( ! is_dir( $directory ) && ! @mkdir( $directory, 0777, true ) ) { // phpcs:ignore
			throw new Bad_Answer( "$directory could not be made." );
		}
		foreach ( $files as $name => $text ) {
			if ( false === @file_put_contents( "$directory/$name", $text ) ) { // phpcs:ignore
				throw new Bad_Answer( "$directory/$name could not be written." );
			}
		}
	}
}
