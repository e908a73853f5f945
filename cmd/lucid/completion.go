package main

import (
	"fmt"
	"strings"
)

// words are the ways to write options.
func words(options []option) []string {
	var out []string
	for _, o := range options {
		if o.long != "" {
			out = append(out, "--"+o.long)
		}
		if o.short != "" {
			out = append(out, "-"+o.short)
		}
	}
	return out
}

// withValue are the options of all commands that take a value, or a file.
func withValue(global []option, commands []verb, files bool) []string {
	seen := map[string]bool{}
	var out []string
	add := func(options []option) {
		for _, o := range options {
			if o.value == "" || files && !o.files() {
				continue
			}
			for _, w := range words([]option{o}) {
				if !seen[w] {
					seen[w] = true
					out = append(out, w)
				}
			}
		}
	}
	add(global)
	for _, v := range commands {
		add(v.options)
	}
	return out
}

// choices are the arguments of a command that are words to choose from.
func (v verb) choices() string {
	if !strings.Contains(v.args, "|") {
		return ""
	}
	return strings.ReplaceAll(v.args, "|", " ")
}

func bashCompletion(global []option, commands []verb) string {
	var b strings.Builder
	names := make([]string, 0, len(commands))
	for _, v := range commands {
		names = append(names, v.name)
	}
	fmt.Fprintf(&b, `# bash completion for lucid, made by "lucid completion bash"
_lucid() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
	local i=1 nth=0 cmd='' options='' words='' root=()
	while ((i < COMP_CWORD)); do
		case ${COMP_WORDS[i]} in
		--root) root=(--root "${COMP_WORDS[i+1]}"); ((i++)) ;;
		%s) ((i++)) ;;
		-*) ;;
		*) if [[ -z $cmd ]]; then cmd=${COMP_WORDS[i]}; else ((nth++)); fi ;;
		esac
		((i++))
	done
	COMPREPLY=()
	case $prev in
	%s) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
	%s) return ;;
	esac
	case $cmd in
	'') options='%s' words='%s' ;;
`, strings.Join(withValue(global, commands, false), "|"), strings.Join(withValue(global, commands, true), "|"),
		strings.Join(withValue(global, commands, false), "|"), strings.Join(words(global), " "), strings.Join(names, " "))
	for _, v := range commands {
		arguments := "''"
		switch {
		case v.takesID():
			arguments = `$(lucid "${root[@]}" list -q 2>/dev/null)`
		case v.choices() != "":
			arguments = "'" + v.choices() + "'"
		}
		fmt.Fprintf(&b, "\t%s) options='%s'; ((nth == 0)) && words=%s ;;\n", v.name, strings.Join(words(v.options), " "), arguments)
	}
	b.WriteString(`	esac
	if [[ $cur == -* ]]; then
		words=$options
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _lucid lucid
`)
	return b.String()
}

// quoted is a word in single quotes, for zsh's specifications without what
// means something in them.
func quoted(s string) string {
	return "'" + strings.NewReplacer("'", "’", "[", "(", "]", ")", ":", " -").Replace(s) + "'"
}

func zshOptions(options []option) string {
	var b strings.Builder
	for _, o := range options {
		tail := ""
		switch {
		case o.value == "DIR":
			tail = ":DIR:_files -/"
		case o.files():
			tail = ":" + o.value + ":_files"
		case o.value != "":
			tail = ":" + strings.ReplaceAll(o.value, ":", "-") + ":"
		}
		usage := strings.Trim(quoted(o.usage), "'")
		for _, w := range words([]option{o}) {
			fmt.Fprintf(&b, " \\\n\t\t\t'%s[%s]%s'", w, usage, strings.NewReplacer("[", "", "]", "").Replace(tail))
		}
	}
	return b.String()
}

func zshCompletion(global []option, commands []verb) string {
	var b strings.Builder
	b.WriteString("#compdef lucid\n# made by \"lucid completion zsh\"\n\n_lucid_ids() {\n\tlocal -a ids\n" +
		"\tids=(${(f)\"$(lucid list -q 2>/dev/null)\"})\n\tcompadd -a ids\n}\n\n_lucid() {\n\tlocal state line curcontext=$curcontext\n\tlocal -a commands\n\tcommands=(\n")
	for _, v := range commands {
		fmt.Fprintf(&b, "\t\t'%s:%s'\n", v.name, strings.Trim(quoted(v.usage), "'"))
	}
	fmt.Fprintf(&b, "\t)\n\t_arguments -C%s \\\n\t\t'1:command:->command' '*::argument:->arguments'\n\tcase $state in\n"+
		"\tcommand) _describe command commands ;;\n\targuments)\n\t\tcase $line[1] in\n", zshOptions(global))
	for _, v := range commands {
		argument := ""
		switch {
		case v.takesID():
			argument = " '1:container:_lucid_ids'"
		case v.choices() != "":
			argument = " '1:argument:(" + v.choices() + ")'"
		}
		fmt.Fprintf(&b, "\t\t%s) _arguments%s%s ;;\n", v.name, zshOptions(v.options), argument)
	}
	b.WriteString("\t\tesac ;;\n\tesac\n}\n\n_lucid \"$@\"\n")
	return b.String()
}

func fishCompletion(global []option, commands []verb) string {
	var b strings.Builder
	b.WriteString("# made by \"lucid completion fish\"\ncomplete -c lucid -f\n")
	list := func(when string, options []option) {
		for _, o := range options {
			fmt.Fprintf(&b, "complete -c lucid -n '%s'", when)
			if o.long != "" {
				b.WriteString(" -l " + o.long)
			}
			if o.short != "" {
				b.WriteString(" -s " + o.short)
			}
			switch {
			case o.files():
				b.WriteString(" -rF")
			case o.value != "":
				b.WriteString(" -x")
			}
			b.WriteString(" -d " + quoted(o.usage) + "\n")
		}
	}
	list("__fish_use_subcommand", global)
	for _, v := range commands {
		fmt.Fprintf(&b, "complete -c lucid -n __fish_use_subcommand -a %s -d %s\n", v.name, quoted(v.usage))
		when := "__fish_seen_subcommand_from " + v.name
		switch {
		case v.takesID():
			fmt.Fprintf(&b, "complete -c lucid -n '%s' -a '(lucid list -q 2>/dev/null)'\n", when)
		case v.choices() != "":
			fmt.Fprintf(&b, "complete -c lucid -n '%s' -a '%s'\n", when, v.choices())
		}
		list(when, v.options)
	}
	return b.String()
}
