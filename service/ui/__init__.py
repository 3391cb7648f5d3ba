"""The web pages: routes, what they show (`*_views`), templates and static files.

Pages call the same functions as the API. It may import `service.web` and `service.reports`, not
`service.api`.
"""
