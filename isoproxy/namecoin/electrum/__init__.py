"""electrum"""
