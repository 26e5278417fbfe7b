"""The webhooks task: a partner's event counts once, however often it is delivered."""
