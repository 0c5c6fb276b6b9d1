"""Commands that are executed as an app is.

``surroundings``  what they find around them
``execution``     one of them, from its start to its end
``leftovers``     what one leaves behind
"""
