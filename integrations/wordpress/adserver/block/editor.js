// The block in the editor: which ad, group or placement. The editor shows its name and never an ad, so that writing an
// article counts nothing.
"use strict";

(({ blocks, blockEditor, components, element, i18n }) => {
  const { createElement: el } = element;
  const { __ } = i18n;
  const kinds = [
    { value: "the_ad", label: __("Ad", "adserver") },
    { value: "the_ad_group", label: __("Group", "adserver") },
    { value: "the_ad_placement", label: __("Placement", "adserver") },
  ];

  const edit = ({ attributes: { kind, id }, setAttributes }) =>
    el(
      "div",
      blockEditor.useBlockProps(),
      el(
        components.Placeholder,
        { icon: "megaphone", label: __("Ad", "adserver") },
        el(components.SelectControl, {
          label: __("What", "adserver"),
          value: kind,
          options: kinds,
          onChange: (value) => setAttributes({ kind: value }),
        }),
        el(components.TextControl, {
          label: __("Its id, such as 889990", "adserver"),
          value: id,
          onChange: (value) => setAttributes({ id: value.trim() }),
        }),
      ),
    );

  blocks.registerBlockType("adserver/ad", { edit, save: () => null });
})(window.wp);
