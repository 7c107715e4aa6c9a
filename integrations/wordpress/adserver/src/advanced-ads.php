<?php
/**
 * What Advanced Ads keeps in this site's database, whether that plugin is still there or not, as one array to be sent
 * to adserver. docs/integrations.md describes its shape.
 */

namespace Adserver;

final class Advanced_Ads {
	private const STATUSES = array( 'publish', 'future', 'draft', 'pending', 'private', 'advanced_ads_expired' );

	public static function collect(): array {
		$groups = self::groups();
		$ads    = self::ads();
		return array(
			'advanced_ads_export' => 1,
			'site'                => array(
				'url'      => home_url(),
				'name'     => wp_specialchars_decode( get_bloginfo( 'name', 'raw' ), ENT_QUOTES ),
				'timezone' => wp_timezone_string(),
			),
			'ads'                 => $ads,
			'groups'              => $groups,
			'placements'          => (object) self::placements(),
			'media'               => self::media( $ads ),
		);
	}

	/**
	 * Advanced Ads 1 keeps them in an option. 2 makes posts of them, under a slug in which dashes stand for the
	 * underscores of the old key, and keeps a copy of what they were; articles still name the old key.
	 */
	private static function placements(): array {
		global $wpdb;
		$kept       = self::option( 'advads-ads-placements' );
		$placements = $kept ? $kept : self::option( 'advads-ads-placements_backup' );
		$keys       = array();
		foreach ( array_keys( $placements ) as $key ) {
			$keys[ str_replace( '_', '-', (string) $key ) ] = $key;
		}
		// phpcs:ignore WordPress.DB
		$rows = $wpdb->get_results( "SELECT ID, post_name, post_title, post_status FROM $wpdb->posts WHERE post_type = 'advanced_ads_plcmnt' AND post_status IN ('publish', 'draft', 'pending', 'private', 'future') ORDER BY ID" );
		foreach ( $rows as $row ) {
			$id      = (int) $row->ID;
			$item    = get_post_meta( $id, 'item', true );
			$options = get_post_meta( $id, 'options', true );

			$placements[ $keys[ $row->post_name ] ?? $row->post_name ] = array(
				'type'    => (string) get_post_meta( $id, 'type', true ),
				'name'    => $row->post_title,
				'item'    => is_string( $item ) ? $item : '',
				'options' => (object) ( is_array( $options ) ? $options : array() ),
				'status'  => $row->post_status,
			);
		}
		return $placements;
	}

	private static function ads(): array {
		global $wpdb;
		$ads      = array();
		$statuses = "'" . implode( "', '", array_map( 'esc_sql', self::STATUSES ) ) . "'";
		// phpcs:ignore WordPress.DB -- the post type is not registered where Advanced Ads is gone
		$rows = $wpdb->get_results( "SELECT ID, post_title, post_status, post_date, post_content FROM $wpdb->posts WHERE post_type = 'advanced_ads' AND post_status IN ($statuses) ORDER BY ID" );
		foreach ( $rows as $row ) {
			$options = get_post_meta( (int) $row->ID, 'advanced_ads_ad_options', true );
			$ads[]   = array(
				'id'      => (int) $row->ID,
				'title'   => $row->post_title,
				'status'  => $row->post_status,
				'date'    => $row->post_date,
				'content' => $row->post_content,
				'options' => (object) ( is_array( $options ) ? $options : array() ),
				'groups'  => self::groups_of( (int) $row->ID ),
			);
		}
		return $ads;
	}

	private static function groups(): array {
		global $wpdb;
		$options = self::option( 'advads-ad-groups' );
		$weights = self::option( 'advads-ad-weights' );
		$groups  = array();
		// phpcs:ignore WordPress.DB
		$rows = $wpdb->get_results( "SELECT t.term_id, t.name, t.slug FROM $wpdb->terms t JOIN $wpdb->term_taxonomy x ON x.term_id = t.term_id WHERE x.taxonomy = 'advanced_ads_groups' ORDER BY t.term_id" );
		foreach ( $rows as $row ) {
			$id    = (int) $row->term_id;
			$about = is_array( $options[ $id ] ?? null ) ? $options[ $id ] : array();
			$parts = is_array( $weights[ $id ] ?? null ) ? $weights[ $id ] : array();
			$newer = get_term_meta( $id, 'advanced_ads_group_options', true );
			if ( is_array( $newer ) ) { // Advanced Ads 2 keeps both with the group.
				$about = array( 'type' => (string) get_term_meta( $id, '_advads_group_type', true ) ) + $newer;
				$parts = is_array( $newer['ad_weights'] ?? null ) ? $newer['ad_weights'] : $parts;
				unset( $about['ad_weights'] );
			}
			$groups[] = array(
				'id'      => $id,
				'name'    => wp_specialchars_decode( $row->name, ENT_QUOTES ),
				'slug'    => $row->slug,
				'options' => (object) $about,
				'weights' => (object) array_map( 'intval', $parts ),
			);
		}
		return $groups;
	}

	/** @return list<int> */
	private static function groups_of( int $ad ): array {
		global $wpdb;
		// phpcs:ignore WordPress.DB
		$ids = $wpdb->get_col( $wpdb->prepare( "SELECT x.term_id FROM $wpdb->term_relationships r JOIN $wpdb->term_taxonomy x ON x.term_taxonomy_id = r.term_taxonomy_id WHERE x.taxonomy = 'advanced_ads_groups' AND r.object_id = %d ORDER BY x.term_id", $ad ) );
		return array_map( 'intval', $ids );
	}

	/** Pictures of the media library that ads name: by their options, or by the class that the editor gives them. */
	private static function media( array $ads ): array {
		$ids = array();
		foreach ( $ads as $ad ) {
			$options = (array) $ad['options'];
			$output  = is_array( $options['output'] ?? null ) ? $options['output'] : array();
			$ids[]   = (int) ( $output['image_id'] ?? 0 );
			$ids[]   = (int) ( $options['image_id'] ?? 0 );
			$named   = array();
			preg_match_all( '~\bwp-image-(\d{1,18})\b~', $ad['content'], $named );
			$ids = array_merge( $ids, array_map( 'intval', $named[1] ) );
		}
		$media = array();
		foreach ( array_unique( array_filter( $ids ) ) as $id ) {
			$url = wp_get_attachment_url( $id );
			if ( ! is_string( $url ) ) {
				continue;
			}
			$about   = wp_get_attachment_metadata( $id );
			$media[] = array(
				'id'     => $id,
				'url'    => $url,
				'width'  => isset( $about['width'] ) ? (int) $about['width'] : null,
				'height' => isset( $about['height'] ) ? (int) $about['height'] : null,
				'alt'    => (string) get_post_meta( $id, '_wp_attachment_image_alt', true ),
				'mime'   => (string) get_post_mime_type( $id ),
			);
		}
		return $media;
	}

	private static function option( string $name ): array {
		$kept = get_option( $name );
		return is_array( $kept ) ? $kept : array();
	}
}
