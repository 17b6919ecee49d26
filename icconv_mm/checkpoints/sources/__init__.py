"""What other repositories released, one module for each: importing it registers how their keys become ours."""
