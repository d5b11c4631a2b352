"""The methods: one folder a family, one file (or folder) a method, named by its id."""
