<?php
/**
 * The widget: an ad in a sidebar.
 */

namespace Adserver;

final class Widget extends \WP_Widget {
	const BASE = 'adserver_ad';

	public static function add(): void {
		add_action(
			'widgets_init',
			static function (): void {
				register_widget( self::class );
			}
		);
	}

	public function __construct() {
		$said = array( 'description' => __( 'An ad of your own ad server.', 'adserver' ) );
		parent::__construct( self::BASE, __( 'Ad (adserver)', 'adserver' ), $said );
	}

	public function widget( $args, $instance ) {
		$set  = self::read( $instance );
		$mark = is_feed() ? '' : Marks::mark( $set['kind'], $set['id'] );
		if ( '' !== $mark ) {
			echo $args['before_widget'] . $mark . $args['after_widget']; // phpcs:ignore WordPress.Security.EscapeOutput
		}
	}

	public function update( $new_instance, $old_instance ) {
		return self::read( $new_instance );
	}

	public function form( $instance ) {
		$set   = self::read( $instance );
		$kinds = array(
			'the_ad'           => __( 'Ad', 'adserver' ),
			'the_ad_group'     => __( 'Group', 'adserver' ),
			'the_ad_placement' => __( 'Placement', 'adserver' ),
		);
		printf( '<p><label for="%s">%s</label> ', esc_attr( $this->get_field_id( 'kind' ) ), esc_html__( 'What', 'adserver' ) );
		printf( '<select class="widefat" id="%s" name="%s">', esc_attr( $this->get_field_id( 'kind' ) ), esc_attr( $this->get_field_name( 'kind' ) ) );
		foreach ( $kinds as $kind => $label ) {
			printf( '<option value="%s"%s>%s</option>', esc_attr( $kind ), selected( $kind, $set['kind'], false ), esc_html( $label ) );
		}
		printf( '</select></p><p><label for="%s">%s</label> ', esc_attr( $this->get_field_id( 'id' ) ), esc_html__( 'Its id, such as 889990', 'adserver' ) );
		printf(
			'<input class="widefat" id="%s" name="%s" value="%s" pattern="[A-Za-z0-9_-]{1,64}"></p>',
			esc_attr( $this->get_field_id( 'id' ) ),
			esc_attr( $this->get_field_name( 'id' ) ),
			esc_attr( $set['id'] )
		);
		return '';
	}

	/** @return array{kind: string, id: string} What is no kind or id becomes the usual one, or none. */
	private static function read( $instance ): array {
		$kind = is_array( $instance ) && in_array( $instance['kind'] ?? null, Marks::NAMES, true ) ? $instance['kind'] : 'the_ad';
		$id   = is_array( $instance ) && is_scalar( $instance['id'] ?? null ) ? trim( (string) $instance['id'] ) : '';
		return array(
			'kind' => $kind,
			'id'   => '' === Marks::mark( $kind, $id ) ? '' : $id,
		);
	}
}
