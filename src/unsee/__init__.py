"""Make a vision-language model forget people, and measure what is left."""
