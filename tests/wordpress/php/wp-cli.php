<?php
/**
 * As much of WP-CLI as the plugin's commands use. Debian has no WP-CLI, and no registry here carries it.
 * Commands are found as WP-CLI finds them: public methods, named by `@subcommand` where that is given.
 */

define( 'WP_CLI', true );

class WP_CLI_Stopped extends Exception {
}

class WP_CLI {
	public static $commands = array();
	public static $said     = array();

	public static function add_command( $name, $class ) {
		foreach ( ( new ReflectionClass( $class ) )->getMethods( ReflectionMethod::IS_PUBLIC ) as $method ) {
			$named = array();
			preg_match( '~@subcommand\s+(\S+)~', (string) $method->getDocComment(), $named );
			self::$commands[ "$name " . ( $named[1] ?? $method->name ) ] = array( $class, $method->name );
		}
	}

	public static function run( $command, $args, $options ) {
		list( $class, $method ) = self::$commands[ $command ];
		try {
			( new $class() )->$method( $args, $options );
			return array( 0, self::$said );
		} catch ( WP_CLI_Stopped $stopped ) {
			return array( 1, self::$said );
		}
	}

	public static function log( $text ) {
		self::$said[] = $text;
	}

	public static function success( $text ) {
		self::$said[] = "Success: $text";
	}

	public static function warning( $text ) {
		self::$said[] = "Warning: $text";
	}

	public static function error( $text ) {
		self::$said[] = "Error: $text";
		throw new WP_CLI_Stopped( $text );
	}
}
