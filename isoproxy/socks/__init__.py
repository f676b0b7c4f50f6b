"""socks"""
