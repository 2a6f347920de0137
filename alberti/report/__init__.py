"""What a run found: numbers with intervals, a verdict in words, tables, figures, and one offline HTML page.

``inputs`` says what it is made from; ``summary.summarise`` turns that into one JSON-able dictionary, and everything else
(``verdict``, ``tables``, ``markdown``, ``figures``, ``page``) reads that dictionary.
"""
