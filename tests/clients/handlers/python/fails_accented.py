raise ValueError("é €")
