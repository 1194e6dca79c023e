from package import missing_name
