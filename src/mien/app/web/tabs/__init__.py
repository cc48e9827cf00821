"""The tools of the page: each file is one group of tabs, a function that draws them and binds them to their acts."""
