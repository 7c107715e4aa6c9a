"""Moving from Advanced Ads."""
