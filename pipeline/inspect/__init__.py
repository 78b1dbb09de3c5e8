"""What a finished set holds, for people: a contact sheet, and a page with counts, histograms, windows and shards."""
