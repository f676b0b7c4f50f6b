"""namecoin"""
