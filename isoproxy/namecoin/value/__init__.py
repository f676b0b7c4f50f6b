"""The value format of domain names (IFA-0001): from bytes to records."""
