"""Screens of single images at test time: is this one stamped?"""
