"""Found by Django by its name: `{% load adserver %}`."""
