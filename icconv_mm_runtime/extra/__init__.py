"""What one use of an exported file needs: a page in the browser, many machines with Ray."""
