"""Human trials: which of two pictures do people prefer?

``design.py`` says what a study is, ``schedule.py`` what each rater sees, ``server.py`` asks, ``store.py`` keeps the answers,
``analysis.py`` counts them. Nothing here knows how the pictures were made.
"""
