package resp

// matches tells whether name matches a pattern of Redis: * ? [abc] [a-z] [^a] and \ before a sign that stands for itself. It takes time
// proportional to both lengths at most, whatever the pattern: after a star only the last star is tried again.
func matches(pattern, name []byte) bool {
	p, n := 0, 0
	star, resume := -1, 0 // where to go on after a mismatch: behind the last star, one byte further in the name
	for n < len(name) {
		if p < len(pattern) && pattern[p] == '*' {
			p++
			star, resume = p, n
			continue
		}
		if p < len(pattern) {
			if hit, width := matchOne(pattern[p:], name[n]); hit {
				p += width
				n++
				continue
			}
		}
		if star < 0 {
			return false
		}
		resume++
		p, n = star, resume
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// matchOne compares a byte with the first element of a pattern, and tells how long that is.
func matchOne(pattern []byte, c byte) (hit bool, width int) {
	switch pattern[0] {
	case '?':
		return true, 1
	case '\\':
		if len(pattern) > 1 {
			return pattern[1] == c, 2
		}
	case '[':
		return matchClass(pattern, c)
	}
	return pattern[0] == c, 1
}

// matchClass compares a byte with a class; one without an end goes to the end of the pattern.
func matchClass(pattern []byte, c byte) (hit bool, width int) {
	i := 1
	not := i < len(pattern) && pattern[i] == '^'
	if not {
		i++
	}
	for i < len(pattern) && pattern[i] != ']' {
		switch {
		case pattern[i] == '\\' && i+1 < len(pattern):
			i++
			hit = hit || pattern[i] == c
		case i+2 < len(pattern) && pattern[i+1] == '-':
			low, high := pattern[i], pattern[i+2]
			if low > high {
				low, high = high, low
			}
			hit = hit || c >= low && c <= high
			i += 2
		default:
			hit = hit || pattern[i] == c
		}
		i++
	}
	return hit != not, min(i+1, len(pattern))
}
