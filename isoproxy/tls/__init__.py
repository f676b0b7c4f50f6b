"""HTTPS for `.bit`: TLS ends here, and the site behind is proven by its name's own record."""
