"""The tests. (This file is here because packages on PyPI bring a `tests` of their own, which would be found first.)"""
